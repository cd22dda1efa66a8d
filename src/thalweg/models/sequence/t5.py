"""T5: every task is a text that becomes a text, so one encoder-decoder of plain blocks learns them all.

In each block x += attention(norm(x)), in the decoder also x += attention(norm(x), what was read), x += mlp(norm(x));
norm(x) = g x / sqrt(mean(x^2) + eps), nothing has a bias, scores are q . k without 1 / sqrt(dim), and places are told by a bias
of their distance alone, one for all layers of a side (`BucketedBias`): score_ts = q_t . k_s + table(bucket(s - t)).
mlp(x) = W_down relu(W_up x), or gated W_down (gelu(W_gate x) * W_up x).
logits = E norm(x) / sqrt(embed_dim), E the embedding of both sides, or, where the head is not tied, W norm(x).
Raffel et al. 2019, arXiv:1910.10683; gates: Shazeer 2020, arXiv:2002.05202 (T5 1.1).   LEE BERT
"""

from math import sqrt
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from thalweg.layers.attention import KeyValueCache, attention
from thalweg.layers.cross_attention import BeamCache
from thalweg.layers.dropout import ByteDropout
from thalweg.layers.norms import RMSNorm
from thalweg.layers.position import BucketedBias
from thalweg.models.sequence.transformer import Memory
from thalweg.weights import Config, Layout, Table, understood


class Attention(nn.Module):
    """Multi-head attention without biases, whose scores are plain products.   [batch time embed] -> the same"""

    def __init__(self, embed_dim: int, num_heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.head_dim, self.dropout = head_dim, dropout
        self.query, self.key, self.value = (nn.Linear(embed_dim, num_heads * head_dim, bias=False) for _ in range(3))
        self.output = nn.Linear(num_heads * head_dim, embed_dim, bias=False)
        for layer, deviation in ((self.query, (embed_dim * head_dim) ** -0.5), (self.key, embed_dim**-0.5),
                                 (self.value, embed_dim**-0.5), (self.output, (num_heads * head_dim) ** -0.5)):  # fmt: skip
            nn.init.normal_(layer.weight, std=deviation)

    def split(self, x: Tensor) -> Tensor:
        """[batch time embed] -> [batch head time dim]"""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def read(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of a memory, [batch head read dim] each."""
        return self.split(self.key(memory)), self.split(self.value(memory))

    def forward(
        self,
        x: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        query = sqrt(self.head_dim) * self.split(self.query(x))  # which attention divides by
        y = attention(query, key, value, mask, bias, self.dropout if self.training else 0.0, causal)
        return self.output(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """y = W_down relu(W_up x), or gated W_down (gelu(W_gate x) * W_up x), with gelu by its tanh."""

    def __init__(self, embed_dim: int, hidden_dim: int, gated: bool, dropout: float):
        super().__init__()
        self.gate = nn.Linear(embed_dim, hidden_dim, bias=False) if gated else None
        self.up, self.down = nn.Linear(embed_dim, hidden_dim, bias=False), nn.Linear(hidden_dim, embed_dim, bias=False)
        self.dropout = ByteDropout(dropout)
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        y = y.relu() if self.gate is None else gelu(self.gate(x), approximate="tanh") * y
        return self.down(self.dropout(y))


class Block(nn.Module):
    """x + attention(norm(x)), in a decoder x + attention(norm(x), memory), then x + mlp(norm(x))."""

    def __init__(self, embed_dim: int, num_heads: int, head_dim: int, hidden_dim: int, gated: bool, dropout: float, eps: float,
                 crosses: bool):  # fmt: skip
        super().__init__()
        self.attention_norm, self.attention = RMSNorm(embed_dim, eps), Attention(embed_dim, num_heads, head_dim, dropout)
        if crosses:
            self.cross_norm, self.cross = RMSNorm(embed_dim, eps), Attention(embed_dim, num_heads, head_dim, dropout)
        self.mlp_norm, self.mlp = RMSNorm(embed_dim, eps), MLP(embed_dim, hidden_dim, gated, dropout)
        self.dropout = ByteDropout(dropout)

    def attend(
        self, x: Tensor, mask: Tensor | None, bias: Tensor, causal: bool = False, cache: KeyValueCache | None = None
    ) -> Tensor:
        seen = self.attention_norm(x)
        key, value = self.attention.read(seen)
        if cache is not None:
            key, value = cache.append(key, value)
        return x + self.dropout(self.attention(seen, key, value, mask, bias, causal))

    def look(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Cross-attention; the targets of a source ask side by side, as if they were its times, so nothing is copied."""
        added = self.cross(self.cross_norm(x).reshape(len(key), -1, x.shape[-1]), key, value, mask)
        return x + self.dropout(added).view_as(x)

    def think(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class T5(nn.Module):
    """source_tokens, source_mask: [batch read], target_tokens: [batch time] -> logits [batch time vocab]

    num_layers: of the encoder, and of the decoder.   head_dim: width of a head; those of a layer need not make up embed_dim.
    hidden_dim: inside the perceptrons.   gated: see `MLP`.   tied: whether the head is the embedding.
    num_buckets, max_distance: see `BucketedBias`.
    """

    def __init__(
        self,
        vocab_size: int = 32128,
        embed_dim: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        head_dim: int = 64,
        hidden_dim: int = 2048,
        gated: bool = False,
        tied: bool = True,
        num_buckets: int = 32,
        max_distance: int = 128,
        dropout: float = 0.1,
        eps: float = 1e-6,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        arguments = (embed_dim, num_heads, head_dim, hidden_dim, gated, dropout, eps)
        self.encoder, self.decoder = (
            nn.ModuleList(Block(*arguments, crosses=crosses) for _ in range(num_layers)) for crosses in (False, True)
        )
        self.encoder_bias, self.decoder_bias = (
            BucketedBias(num_heads, num_buckets, max_distance, causal) for causal in (False, True)
        )
        self.encoder_norm, self.decoder_norm = RMSNorm(embed_dim, eps), RMSNorm(embed_dim, eps)
        self.head = None if tied else nn.Linear(embed_dim, vocab_size, bias=False)
        self.dropout = ByteDropout(dropout)

    def forward(
        self,
        source_tokens: Int[Tensor, "batch read"],
        source_mask: Bool[Tensor, "batch read"],
        target_tokens: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time vocab"]:
        return self.decode(target_tokens, self.encode(source_tokens, source_mask))

    def encode(self, source_tokens: Int[Tensor, "batch read"], source_mask: Bool[Tensor, "batch read"]) -> Memory:
        """The keys and values that each layer of the decoder looks at."""
        time, mask = source_tokens.shape[1], source_mask[:, None, None]
        x, bias = self.dropout(self.embedding(source_tokens)), self.encoder_bias(time, time)
        for block in self.encoder:
            x = block.think(block.attend(x, mask, bias))  # type: ignore[operator]
        x = self.dropout(self.encoder_norm(x))
        return Memory([block.cross.read(x) for block in self.decoder], mask)  # type: ignore[union-attr,operator]

    def decode(
        self, target_tokens: Int[Tensor, "rows time"], memory: Memory, cache: BeamCache | None = None
    ) -> Float[Tensor, "rows time vocab"]:
        x, time = self.dropout(self.embedding(target_tokens)), target_tokens.shape[1]
        if cache is None:
            bias = self.decoder_bias(time, time)
        else:  # the targets of a source stand side by side, as if they were its times
            x = x.view(len(memory.mask), -1, x.shape[-1])
            readable = cache.extend(time)
            bias = self.decoder_bias.at(cache.places - cache.places[-x.shape[1] :, None])
            bias = bias if readable is None else bias + readable
        layers = [None] * len(self.decoder) if cache is None else cache.layers
        for block, read, kept in zip(self.decoder, memory.read, layers, strict=True):
            x = block.think(block.look(block.attend(x, None, bias, cache is None, kept), *read, memory.mask))  # type: ignore[operator]
        x = self.dropout(self.decoder_norm(x)).view(*target_tokens.shape, -1)
        return linear(x * x.shape[-1] ** -0.5, self.embedding.weight) if self.head is None else self.head(x)

    def new_cache(self, memory: Memory, copies: int, time: int) -> BeamCache:
        """Room for keys and values of up to `time` places of so many targets of each source."""
        batch, heads, _, dim = memory.read[0][0].shape
        return BeamCache(len(self.decoder), batch, copies, heads, time, dim, memory.read[0][0])


def t5_small(**arguments: Any) -> T5:
    """6 + 6 blocks of width 512, 60,506,624 parameters."""
    return T5(**arguments)


def t5_base(**arguments: Any) -> T5:
    """12 + 12 blocks of width 768, 222,903,552 parameters."""
    return T5(embed_dim=768, num_layers=12, num_heads=12, hidden_dim=3072, **arguments)


TRANSFORMERS = {"vocab_size": "vocab_size", "d_model": "embed_dim", "num_layers": "num_layers", "num_heads": "num_heads",
                "d_kv": "head_dim", "d_ff": "hidden_dim", "relative_attention_num_buckets": "num_buckets",
                "dropout_rate": "dropout", "layer_norm_epsilon": "eps"}  # fmt: skip


def arguments(config: Config) -> dict[str, Any]:
    """What T5 takes, from the config.json of transformers' T5ForConditionalGeneration."""
    free = (*TRANSFORMERS, "feed_forward_proj", "dense_act_fn", "is_gated_act", "relative_attention_max_distance",
            "tie_word_embeddings", "num_decoder_layers", "bos_token_id", "eos_token_id", "pad_token_id",
            "decoder_start_token_id", "initializer_factor", "use_cache", "output_past", "n_positions",
            "task_specific_params", "classifier_dropout", "scale_decoder_outputs")  # fmt: skip
    understood(config, free, model_type="t5", is_encoder_decoder=True, is_decoder=False)
    if (kind := config.get("feed_forward_proj", "relu")) not in ("relu", "gated-gelu"):
        raise ValueError(f"config.json says feed_forward_proj={kind!r} (expected 'relu' or 'gated-gelu'): not understood")
    if (depth := config.get("num_decoder_layers") or config["num_layers"]) != config["num_layers"]:
        raise ValueError(f"config.json says num_decoder_layers={depth!r} (expected {config['num_layers']}): not understood")
    return {ours: config[public] for public, ours in TRANSFORMERS.items()} | {
        "max_distance": config.get("relative_attention_max_distance", 128),
        "gated": kind == "gated-gelu",
        "tied": config.get("tie_word_embeddings", True),
    }


def config(model: T5) -> Config:
    """The config.json of transformers' T5ForConditionalGeneration."""
    block: Any = model.encoder[0]
    vocab_size, embed_dim = model.embedding.weight.shape
    size = {"vocab_size": vocab_size, "embed_dim": embed_dim, "num_layers": len(model.encoder),
            "num_heads": model.encoder_bias.table.embedding_dim, "head_dim": block.attention.head_dim,
            "hidden_dim": block.mlp.up.out_features, "num_buckets": model.encoder_bias.num_buckets, "dropout": model.dropout.p,
            "eps": model.encoder_norm.eps}  # fmt: skip
    return {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True,
            "feed_forward_proj": "relu" if block.mlp.gate is None else "gated-gelu",
            "relative_attention_max_distance": model.encoder_bias.max_distance, "tie_word_embeddings": model.head is None,
            "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
            **{public: size[ours] for public, ours in TRANSFORMERS.items()}}  # fmt: skip


def _table(up: dict[str, str]) -> Table:
    """The key table of both sides; up: the layers into the perceptrons."""
    table: dict[Any, Any] = {"shared.weight": "embedding.weight", "lm_head.weight": "head.weight",
                             "encoder.embed_tokens.weight": None, "decoder.embed_tokens.weight": None,
                             "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": None}  # fmt: skip
    for side, parts in (("encoder", ("SelfAttention", "mlp")), ("decoder", ("SelfAttention", "EncDecAttention", "mlp"))):
        table[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = f"{side}_bias.table.weight"
        table[f"{side}.final_layer_norm.weight"] = f"{side}_norm.weight"
        for number, part in enumerate(parts):
            public, ours = f"{side}.block.{{0}}.layer.{number}", f"{side}.{{0}}"
            if part == "mlp":
                lines = {f"DenseReluDense.{name}": f"mlp.{layer}" for name, layer in (up | {"wo": "down"}).items()}
                norm = "mlp_norm"
            else:
                name = {"SelfAttention": "attention", "EncDecAttention": "cross"}[part]
                lines = {f"{part}.{layer[0]}": f"{name}.{layer}" for layer in ("query", "key", "value", "output")}
                norm = f"{name}_norm"
            table |= {f"{public}.{theirs}.weight": f"{ours}.{layer}.weight" for theirs, layer in lines.items()}
            table[f"{public}.layer_norm.weight"] = f"{ours}.{norm}.weight"
    return table


PUBLIC = {
    "transformers": Layout(_table({"wi": "up"}), arguments, config),
    "transformers-gated": Layout(_table({"wi_0": "gate", "wi_1": "up"}), arguments, config),  # T5 1.1, Flan-T5
}
