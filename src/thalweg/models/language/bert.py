"""BERT: a Transformer encoder that reads a text from both sides at once, so that every token is seen by all others.

x = norm(embedding(token) + position + segment(first or second text));  in each block x = norm(x + attention(x)),
x = norm(x + mlp(x)), mlp(x) = W_down gelu(W_up x).  The text as a whole is tanh(W x) of its first place, [CLS].
Devlin, Chang, Lee, Toutanova 2018, arXiv:1810.04805; MiniLM: Wang et al. 2020, arXiv:2002.10957.   D2L 14.8-14.10, LEE BERT
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu

from thalweg.layers.attention import attention
from thalweg.layers.dropout import ByteDropout
from thalweg.weights import Config, Layout, patterns, understood


class Attention(nn.Module):
    """Multi-head attention to all places that the mask shows.   x: [batch time embed] -> [batch time embed]"""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [batch head time dim]
        dropout = self.dropout if self.training else 0.0
        return self.output(attention(query, key, value, mask, dropout=dropout).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """y = W_down gelu(W_up x): every place for itself."""

    def __init__(self, embed_dim: int, hidden_dim: int):
        super().__init__()
        self.up, self.down = nn.Linear(embed_dim, hidden_dim), nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))


class Block(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)); dropout on both branches."""

    def __init__(self, embed_dim: int, num_heads: int, hidden_dim: int, dropout: float, eps: float):
        super().__init__()
        self.attention, self.attention_norm = Attention(embed_dim, num_heads, dropout), nn.LayerNorm(embed_dim, eps)
        self.mlp, self.mlp_norm = MLP(embed_dim, hidden_dim), nn.LayerNorm(embed_dim, eps)
        self.dropout = ByteDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class BERT(nn.Module):
    """tokens [batch time] -> a vector of each in its context [batch time embed]

    mask: True where a token is real [batch time]; or which places may read which [batch time time], True where the second
    is read.   segment: 0 for tokens of the first text, 1 for those of the second; all of the first if not given.
    context: the largest number of tokens it can read.   hidden_dim: inside the perceptrons, 4 embed_dim if None.
    segments: how many texts are told apart.
    ValueError if num_heads does not divide embed_dim, or if there are more tokens than the context.
    """

    def __init__(
        self,
        vocab_size: int = 30522,
        context: int = 512,
        embed_dim: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        hidden_dim: int | None = None,
        segments: int = 2,
        dropout: float = 0.1,
        eps: float = 1e-12,
    ):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim}: expected a multiple of num_heads={num_heads}")
        self.embedding, self.position = nn.Embedding(vocab_size, embed_dim), nn.Embedding(context, embed_dim)
        self.segment, self.embedding_norm = nn.Embedding(segments, embed_dim), nn.LayerNorm(embed_dim, eps)
        self.dropout = ByteDropout(dropout)
        width = hidden_dim or 4 * embed_dim
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, width, dropout, eps) for _ in range(num_layers))
        self.pooler = nn.Linear(embed_dim, embed_dim)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def embedded(self, tokens: Tensor, segment: Tensor | None = None) -> Float[Tensor, "batch time embed"]:
        """Tokens with their places and segments."""
        time, context = tokens.shape[1], self.position.num_embeddings
        if time > context:
            raise ValueError(f"tokens: {time} of them, the model reads at most context={context}")
        x = self.embedding(tokens) + self.position.weight[:time]
        x = x + (self.segment.weight[0] if segment is None else self.segment(segment))
        return self.dropout(self.embedding_norm(x))

    def layers(
        self,
        tokens: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "..."] | None = None,
        segment: Int[Tensor, "batch time"] | None = None,
    ) -> list[Float[Tensor, "batch time embed"]]:
        """What the embedding says of each token, and then each block."""
        states = [self.embedded(tokens, segment)]
        seen = mask[:, None, None] if mask is not None and mask.ndim == 2 else None if mask is None else mask[:, None]
        for block in self.blocks:
            states.append(block(states[-1], seen))
        return states

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        mask: Bool[Tensor, "..."] | None = None,
        segment: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time embed"]:
        return self.layers(tokens, mask, segment)[-1]

    def pooled(self, states: Float[Tensor, "batch time embed"]) -> Float[Tensor, "batch embed"]:
        """A vector of the text as a whole: tanh(W x_0)."""
        return torch.tanh(self.pooler(states[:, 0]))


def bert(**arguments: Any) -> BERT:
    """12 blocks of width 768 if nothing else is said: BERT base, 109,482,240 parameters."""
    return BERT(**arguments)


def bert_large(**arguments: Any) -> BERT:
    """24 blocks of width 1024, 335,141,888 parameters."""
    return BERT(embed_dim=1024, num_layers=24, num_heads=16, **arguments)


def minilm(**arguments: Any) -> BERT:
    """6 blocks of width 384, 22,713,216 parameters: what BERT base knows, in a fifth of its size."""
    return BERT(embed_dim=384, num_layers=6, num_heads=12, **arguments)


TRANSFORMERS = {"vocab_size": "vocab_size", "max_position_embeddings": "context", "hidden_size": "embed_dim",
                "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads", "intermediate_size": "hidden_dim",
                "type_vocab_size": "segments", "hidden_dropout_prob": "dropout", "layer_norm_eps": "eps"}  # fmt: skip


def arguments(config: Config) -> dict[str, Any]:
    """What BERT takes, from the config.json of transformers' BertModel and of what is built on it."""
    free = (*TRANSFORMERS, "attention_probs_dropout_prob", "bos_token_id", "classifier_dropout", "directionality",
            "eos_token_id", "gradient_checkpointing", "output_past", "pad_token_id", "pooler_fc_size",
            "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
            "tie_word_embeddings", "use_cache")  # fmt: skip
    understood(config, free, model_type="bert", hidden_act="gelu", position_embedding_type="absolute", is_decoder=False,
               add_cross_attention=False)  # fmt: skip
    return {ours: config[public] for public, ours in TRANSFORMERS.items()}


def config(model: BERT) -> Config:
    """The config.json of transformers' BertModel."""
    vocab_size, embed_dim = model.embedding.weight.shape
    block: Any = model.blocks[0]
    size = {"vocab_size": vocab_size, "context": model.position.num_embeddings, "embed_dim": embed_dim,
            "num_layers": len(model.blocks), "num_heads": block.attention.num_heads, "hidden_dim": block.mlp.up.out_features,
            "segments": model.segment.num_embeddings, "dropout": model.dropout.p, "eps": model.embedding_norm.eps}  # fmt: skip
    stated = {public: size[ours] for public, ours in TRANSFORMERS.items()}
    return {"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute",
            "attention_probs_dropout_prob": model.dropout.p, "pad_token_id": 0, **stated}  # fmt: skip


BARE: dict[Any, Any] = {
    "embeddings.word_embeddings.*": "embedding.*",
    "embeddings.position_embeddings.*": "position.*",
    "embeddings.token_type_embeddings.*": "segment.*",
    "embeddings.position_ids": None,
    "embeddings.LayerNorm.*": "embedding_norm.*",
    (
        "encoder.layer.{0}.attention.self.query.*",
        "encoder.layer.{0}.attention.self.key.*",
        "encoder.layer.{0}.attention.self.value.*",
    ): "blocks.{0}.attention.qkv.*",
    "encoder.layer.{0}.attention.output.dense.*": "blocks.{0}.attention.output.*",
    "encoder.layer.{0}.attention.output.LayerNorm.*": "blocks.{0}.attention_norm.*",
    "encoder.layer.{0}.intermediate.dense.*": "blocks.{0}.mlp.up.*",
    "encoder.layer.{0}.output.dense.*": "blocks.{0}.mlp.down.*",
    "encoder.layer.{0}.output.LayerNorm.*": "blocks.{0}.mlp_norm.*",
    "pooler.dense.*": "pooler.*",
}


def _within(table: dict[Any, Any]) -> dict[Any, Any]:
    """The table for an encoder inside of a larger model; what that has learned for the objectives of its training is left."""
    inside = {tuple(f"bert.{part}" for part in patterns(public)): ours for public, ours in table.items()}
    return {**inside, "cls.*": None}


def _of_2018(table: dict[Any, Any]) -> dict[Any, Any]:
    """The table for checkpoints that were converted when norms had other names."""
    old: dict[Any, Any] = {}
    for public, ours in table.items():
        names = patterns(public)
        if len(names) == 1 and names[0].endswith("LayerNorm.*"):
            old |= {names[0][:-1] + was: ours[:-1] + now for was, now in (("gamma", "weight"), ("beta", "bias"))}
        else:
            old[public] = ours
    return old


SPARE = ("pooler",)  # which BertForMaskedLM does without
PUBLIC = {  # the names of 2018 match those of today's patterns too, so they are tried before
    "transformers-2018": Layout(_of_2018(_within(BARE)), arguments, config),  # the first checkpoints on the hub
    "transformers": Layout(_within(BARE), arguments, config),  # BertForMaskedLM, BertForPreTraining
    "transformers-bare": Layout(BARE, arguments, config),  # BertModel, and sentence encoders
}
