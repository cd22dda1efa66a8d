"""GPT: a stack of blocks that read only backwards, so that every place predicts the token that follows it.

x = embedding(tokens) + position;  x += attention(norm(x)), x += mlp(norm(x)) in each block;  logits = embedding^T norm(x).
Radford et al. 2018, "Improving language understanding by generative pre-training"; 2019, "Language models are
unsupervised multitask learners" (GPT-2, which this is).   LBDL 5.3, D2L 14.8
"""

from math import sqrt
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from thalweg.layers.attention import KeyValueCache, attention
from thalweg.weights import Config, Layout, understood


class Attention(nn.Module):
    """Multi-head attention to the places before.   x: [batch time embed] -> [batch time embed]"""

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [batch head time dim]
        mask = None
        if cache is not None:
            (key, value), mask = cache.append(key, value), cache.mask
        return self.output(attention(query, key, value, mask, causal=True).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """y = W_down gelu(W_up x): every place for itself, through four times the width."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.up, self.down = nn.Linear(embed_dim, 4 * embed_dim), nn.Linear(4 * embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); dropout on both branches."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float, eps: float):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(embed_dim, eps), Attention(embed_dim, num_heads)
        self.mlp_norm, self.mlp = nn.LayerNorm(embed_dim, eps), MLP(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), cache))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class GPT(nn.Module):
    """context: the largest number of tokens it can read.   tokens [batch time] -> logits of the next one [batch time vocab]

    ValueError if num_heads does not divide embed_dim, or if there are more tokens than the context.
    """

    def __init__(
        self,
        vocab_size: int = 50257,
        context: int = 1024,
        embed_dim: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        dropout: float = 0.0,
        eps: float = 1e-5,
    ):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim}: expected a multiple of num_heads={num_heads}")
        self.context, self.num_heads = context, num_heads
        self.embedding, self.position = nn.Embedding(vocab_size, embed_dim), nn.Embedding(context, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, dropout, eps) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dim, eps)
        self.apply(_initialise)
        for name, weight in self.named_parameters():
            if name.endswith(("output.weight", "down.weight")):  # each block adds two, so their sum keeps its size
                nn.init.normal_(weight, std=0.02 / sqrt(2 * num_layers))

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        return linear(self.features(tokens, cache), self.embedding.weight)

    def features(
        self, tokens: Int[Tensor, "batch time"], cache: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        """What the logits are products of: enough for a text that is read and not yet gone on with."""
        start = cache[0].length if cache else 0
        if (end := tokens.shape[1] + int(start if isinstance(start, int) else start.max())) > self.context:
            raise ValueError(f"tokens: {end} of them, the model reads at most context={self.context}")
        position = self.position.weight[start:end] if isinstance(start, int) else self.position(start)[:, None]
        x = self.dropout(self.embedding(tokens) + position)
        for index, block in enumerate(self.blocks):
            x = block(x, cache[index] if cache else None)
        return self.norm(x)

    def new_cache(self, batch: int, time: int) -> list[KeyValueCache]:
        """What `forward` keeps of up to `time` tokens that it has read, so that each is read once."""
        weight = self.embedding.weight
        return [KeyValueCache(batch, self.num_heads, time, weight.shape[1] // self.num_heads, weight) for _ in self.blocks]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def gpt2(**arguments: Any) -> GPT:
    """12 blocks of width 768, 124,439,808 parameters."""
    return GPT(**arguments)


def gpt2_medium(**arguments: Any) -> GPT:
    """24 blocks of width 1024, 354,823,168 parameters."""
    return GPT(embed_dim=1024, num_layers=24, num_heads=16, **arguments)


def gpt2_large(**arguments: Any) -> GPT:
    """36 blocks of width 1280, 774,030,080 parameters."""
    return GPT(embed_dim=1280, num_layers=36, num_heads=20, **arguments)


def gpt2_xl(**arguments: Any) -> GPT:
    """48 blocks of width 1600, 1,557,611,200 parameters."""
    return GPT(embed_dim=1600, num_layers=48, num_heads=25, **arguments)


def gpt3(**arguments: Any) -> GPT:
    """96 blocks of width 12,288 as in GPT-3, whose attention was partly sparse: 174,604,259,328 parameters.

    Brown et al. 2020, arXiv:2005.14165.   LBDL 7.1
    """
    return GPT(context=2048, embed_dim=12288, num_layers=96, num_heads=96, **arguments)


TRANSFORMERS = {"vocab_size": "vocab_size", "n_positions": "context", "n_embd": "embed_dim", "n_layer": "num_layers",
                "n_head": "num_heads", "resid_pdrop": "dropout", "layer_norm_epsilon": "eps"}  # fmt: skip


def arguments(config: Config) -> dict[str, Any]:
    """What GPT takes, from the config.json of transformers' GPT2LMHeadModel."""
    free = (*TRANSFORMERS, "n_ctx", "attn_pdrop", "embd_pdrop", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache",
            "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
            "task_specific_params", "reorder_and_upcast_attn")  # fmt: skip
    understood(config, free, model_type="gpt2", activation_function="gelu_new", n_inner=None, scale_attn_weights=True,
               scale_attn_by_inverse_layer_idx=False, add_cross_attention=False, tie_word_embeddings=True)  # fmt: skip
    return {ours: config[public] for public, ours in TRANSFORMERS.items()}


def config(model: GPT) -> Config:
    """The config.json of transformers' GPT2LMHeadModel."""
    vocab_size, embed_dim = model.embedding.weight.shape
    size = {"vocab_size": vocab_size, "context": model.context, "embed_dim": embed_dim, "num_layers": len(model.blocks),
            "num_heads": model.num_heads, "dropout": model.dropout.p, "eps": model.norm.eps}  # fmt: skip
    stated = {public: size[ours] for public, ours in TRANSFORMERS.items()}
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
            "attn_pdrop": 0.0, "embd_pdrop": model.dropout.p, **stated}  # fmt: skip


BARE: dict[Any, Any] = {
    "wte.weight": "embedding.weight",
    "wpe.weight": "position.weight",
    "h.{0}.ln_1.*": "blocks.{0}.attention_norm.*",
    "h.{0}.attn.c_attn.weight": ("blocks.{0}.attention.qkv.weight", "transposed"),
    "h.{0}.attn.c_attn.bias": "blocks.{0}.attention.qkv.bias",
    "h.{0}.attn.c_proj.weight": ("blocks.{0}.attention.output.weight", "transposed"),
    "h.{0}.attn.c_proj.bias": "blocks.{0}.attention.output.bias",
    "h.{0}.attn.bias": None,  # the mask, in checkpoints of 2019
    "h.{0}.ln_2.*": "blocks.{0}.mlp_norm.*",
    "h.{0}.mlp.c_fc.weight": ("blocks.{0}.mlp.up.weight", "transposed"),
    "h.{0}.mlp.c_fc.bias": "blocks.{0}.mlp.up.bias",
    "h.{0}.mlp.c_proj.weight": ("blocks.{0}.mlp.down.weight", "transposed"),
    "h.{0}.mlp.c_proj.bias": "blocks.{0}.mlp.down.bias",
    "ln_f.*": "norm.*",
}

PUBLIC = {
    "transformers": Layout(
        {"lm_head.weight": None, **{f"transformer.{public}": ours for public, ours in BARE.items()}}, arguments, config
    ),
    "transformers-bare": Layout(BARE, arguments, config),  # GPT2Model, and the checkpoints named gpt2 on the hub
}
