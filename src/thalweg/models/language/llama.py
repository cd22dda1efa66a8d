"""Llama: the decoder-only Transformer that most open language models of today are.

x = embedding(tokens);  x += attention(norm(x)), x += mlp(norm(x)) in each block;  logits = head norm(x).
norm(x) = g x / sqrt(mean(x^2) + eps);  mlp(x) = W_down (silu(W_gate x) * W_up x);  queries and keys are turned by their places,
and several heads of queries share one of keys and values, so that what is kept of a text while it is written is small.
Touvron et al. 2023, arXiv:2302.13971; Llama 2: arXiv:2307.09288; Llama 3: arXiv:2407.21783.
Root mean squares: Zhang, Sennrich 2019, arXiv:1910.07467. SwiGLU: Shazeer 2020, arXiv:2002.05202. Shared heads: Ainslie et al.
2023, arXiv:2305.13245. A window: Mistral, Jiang et al. 2023, arXiv:2310.06825. Small models of this form: SmolLM2, Ben Allal
et al. 2025, arXiv:2502.02737.   LBDL 5.3
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from thalweg.layers.attention import KeyValueCache, attention
from thalweg.layers.norms import RMSNorm
from thalweg.layers.position import rotate, rotation, slowed
from thalweg.weights import Config, Layout, understood


class Attention(nn.Module):
    """Multi-head attention to the places before, keys and values shared.   x: [batch time embed] -> [batch time embed]"""

    def __init__(self, embed_dim: int, num_heads: int, num_key_value_heads: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.query = nn.Linear(embed_dim, num_heads * head_dim, bias=False)
        self.key, self.value = (nn.Linear(embed_dim, num_key_value_heads * head_dim, bias=False) for _ in range(2))
        self.output = nn.Linear(num_heads * head_dim, embed_dim, bias=False)

    def forward(self, x: Tensor, turn: Tensor, cache: KeyValueCache | None = None, near: Tensor | None = None) -> Tensor:
        """near: True where a place may be read, besides that it is real and not later."""
        split = (-1, self.head_dim)
        query, key, value = (layer(x).unflatten(-1, split).transpose(1, 2) for layer in (self.query, self.key, self.value))
        query, key, mask = rotate(query, turn), rotate(key, turn), near  # [batch head time dim]
        if cache is not None:
            key, value = cache.append(key, value)
            if cache.mask is not None:
                mask = cache.mask if near is None else cache.mask & near[..., : key.shape[2]]
        return self.output(attention(query, key, value, mask, causal=True).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """y = W_down (silu(W_gate x) * W_up x): every place for itself; one product says how much of the other goes through."""

    def __init__(self, embed_dim: int, hidden_dim: int):
        super().__init__()
        self.gate, self.up = (nn.Linear(embed_dim, hidden_dim, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden_dim, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, embed_dim: int, num_heads: int, num_key_value_heads: int, head_dim: int, hidden_dim: int, eps: float):
        super().__init__()
        self.attention_norm = RMSNorm(embed_dim, eps)
        self.attention = Attention(embed_dim, num_heads, num_key_value_heads, head_dim)
        self.mlp_norm, self.mlp = RMSNorm(embed_dim, eps), MLP(embed_dim, hidden_dim)

    def forward(self, x: Tensor, turn: Tensor, cache: KeyValueCache | None = None, near: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), turn, cache, near)
        return x + self.mlp(self.mlp_norm(x))


class Llama(nn.Module):
    """tokens [batch time] -> logits of the next one [batch time vocab]

    context: the largest number of tokens it can read.   num_key_value_heads: heads of keys and values, one for each of queries
    if None.   head_dim: width of a head, embed_dim / num_heads if None.   base: see `rotation`.   tied: whether the head is the
    embedding.   stretch: (factor, low, high, context) of `slowed`, how Llama 3.1 was made to read longer texts.
    window: each place reads itself and the window - 1 before it, in every block, so that after several blocks it has heard of
    places further back; all of those before if None. What is kept of a text is not cut to it.
    ValueError if the heads cannot be shared evenly, or if there are more tokens than the context.
    """

    def __init__(
        self,
        vocab_size: int = 49152,
        context: int = 8192,
        embed_dim: int = 576,
        num_layers: int = 30,
        num_heads: int = 9,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        hidden_dim: int = 1536,
        eps: float = 1e-5,
        base: float = 10000.0,
        tied: bool = True,
        stretch: Sequence[float | int] | None = None,
        window: int | None = None,
    ):
        super().__init__()
        groups = num_heads if num_key_value_heads is None else num_key_value_heads
        if embed_dim % num_heads and head_dim is None:
            raise ValueError(f"embed_dim={embed_dim}: expected a multiple of num_heads={num_heads}, or a head_dim")
        if groups < 1 or num_heads % groups:
            raise ValueError(f"num_key_value_heads={num_key_value_heads}: expected a divisor of num_heads={num_heads}")
        if window is not None and window < 1:
            raise ValueError(f"window={window}: expected at least 1")
        self.head_dim, self.window = head_dim or embed_dim // num_heads, window
        self.context, self.num_key_value_heads, self.base, self.stretch = context, groups, base, stretch
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, groups, self.head_dim, hidden_dim, eps) for _ in range(num_layers)
        )
        self.norm = RMSNorm(embed_dim, eps)
        self.head = None if tied else nn.Linear(embed_dim, vocab_size, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:  # each block adds two, so their sum keeps its size
                added = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / sqrt(2 * num_layers) if added else 0.02)

    def features(
        self, tokens: Int[Tensor, "batch time"], cache: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        """What `forward` gives the head: enough for a text that is read and not yet gone on with."""
        start = cache[0].length if cache else 0
        if (end := tokens.shape[1] + (start if isinstance(start, int) else int(start.max()))) > self.context:
            raise ValueError(f"tokens: {end} of them, the model reads at most context={self.context}")
        x = self.embedding(tokens)
        kind = x.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))  # the sum over the blocks too: a tenth faster than in float32
        slower = slowed(self.head_dim, self.base, *self.stretch) if self.stretch else None
        turn = rotation(start, tokens.shape[1], self.head_dim, x, self.base, slower)
        near = None
        if self.window and end > self.window:
            place = torch.arange(tokens.shape[1], device=x.device) + start if isinstance(start, int) else start[:, None, None]
            near = torch.arange(end, device=x.device) > place[..., None] - self.window  # [time read], or [batch 1 1 read]
        for index, block in enumerate(self.blocks):
            x = block(x, turn, cache[index] if cache else None, near)
        return self.norm(x)

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: list[KeyValueCache] | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        x = self.features(tokens, cache)
        return linear(x, self.embedding.weight) if self.head is None else self.head(x)

    def new_cache(self, batch: int, time: int) -> list[KeyValueCache]:
        """What `forward` keeps of up to `time` tokens that it has read, so that each is read once."""
        like = self.embedding.weight
        return [KeyValueCache(batch, self.num_key_value_heads, time, self.head_dim, like) for _ in self.blocks]


def smollm2_135m(**arguments: Any) -> Llama:
    """30 blocks of width 576, 134,515,008 parameters.   arXiv:2502.02737"""
    return Llama(num_key_value_heads=3, base=100000.0, **arguments)


def llama_7b(**arguments: Any) -> Llama:
    """32 blocks of width 4096, 6,738,415,616 parameters.   arXiv:2302.13971"""
    return Llama(**{"vocab_size": 32000, "context": 2048, "embed_dim": 4096, "num_layers": 32, "num_heads": 32,
                    "hidden_dim": 11008, "eps": 1e-6, "tied": False, **arguments})  # fmt: skip


def llama3_8b(**arguments: Any) -> Llama:
    """32 blocks of width 4096, 8 heads of keys and values, 8,030,261,248 parameters.   arXiv:2407.21783"""
    return Llama(**{"vocab_size": 128256, "context": 8192, "embed_dim": 4096, "num_layers": 32, "num_heads": 32,
                    "num_key_value_heads": 8, "hidden_dim": 14336, "base": 500000.0, "tied": False, **arguments})  # fmt: skip


def mistral_7b(**arguments: Any) -> Llama:
    """32 blocks of width 4096 that read 4096 places each, 8 heads of keys and values, 7,241,732,096 parameters.

    Jiang et al. 2023, arXiv:2310.06825.   LBDL 8.4
    """
    return Llama(**{"vocab_size": 32000, "context": 32768, "embed_dim": 4096, "num_layers": 32, "num_heads": 32,
                    "num_key_value_heads": 8, "hidden_dim": 14336, "window": 4096, "tied": False, **arguments})  # fmt: skip


TRANSFORMERS = {"vocab_size": "vocab_size", "max_position_embeddings": "context", "hidden_size": "embed_dim",
                "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads", "intermediate_size": "hidden_dim",
                "num_key_value_heads": "num_key_value_heads", "rms_norm_eps": "eps"}  # fmt: skip
STRETCH = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def arguments(config: Config) -> dict[str, Any]:
    """What Llama takes, from the config.json of transformers' LlamaForCausalLM or MistralForCausalLM."""
    free = (*TRANSFORMERS, "head_dim", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings",
            "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "pretraining_tp",
            "is_llama_config", "rope_interleaved", "transformers.js_config")  # fmt: skip
    family = "mistral" if config.get("model_type") == "mistral" else "llama"
    free = (*free, "sliding_window") if family == "mistral" else free
    understood(config, free, model_type=family, hidden_act="silu", attention_bias=False, mlp_bias=False)
    rope = {"rope_theta": config.get("rope_theta", 10000.0)}
    rope |= config.get("rope_scaling") or {}
    rope |= config.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"config.json says rope_type={kind!r} (expected 'default' or 'llama3'): not understood")
    stated = {ours: config[public] for public, ours in TRANSFORMERS.items() if public != "num_key_value_heads"}
    return stated | {
        "num_key_value_heads": config.get("num_key_value_heads"),
        "head_dim": config.get("head_dim"),
        "base": float(rope["rope_theta"]),
        "tied": config.get("tie_word_embeddings", False),
        "stretch": [rope[name] for name in STRETCH] if kind == "llama3" else None,
        "window": config.get("sliding_window"),
    }


def config(model: Llama) -> Config:
    """The config.json of transformers' LlamaForCausalLM; with a window, of MistralForCausalLM."""
    vocab_size, embed_dim = model.embedding.weight.shape
    block: Any = model.blocks[0]
    size = {"vocab_size": vocab_size, "context": model.context, "embed_dim": embed_dim, "num_layers": len(model.blocks),
            "num_heads": block.attention.query.out_features // model.head_dim, "hidden_dim": block.mlp.up.out_features,
            "num_key_value_heads": model.num_key_value_heads, "eps": model.norm.eps}  # fmt: skip
    rope = dict(zip(STRETCH, model.stretch, strict=True), rope_type="llama3") if model.stretch else None
    family = "Mistral" if model.window else "Llama"
    own = {"sliding_window": model.window} if model.window else {"attention_bias": False, "mlp_bias": False}
    return {"architectures": [f"{family}ForCausalLM"], "model_type": family.lower(), "hidden_act": "silu", **own,
            "head_dim": model.head_dim, "rope_theta": model.base, "rope_scaling": rope,
            "tie_word_embeddings": model.head is None,
            **{public: size[ours] for public, ours in TRANSFORMERS.items()}}  # fmt: skip


PUBLIC = {
    "transformers": Layout(
        {
            "model.embed_tokens.weight": "embedding.weight",
            "model.layers.{0}.input_layernorm.weight": "blocks.{0}.attention_norm.weight",
            "model.layers.{0}.self_attn.q_proj.weight": "blocks.{0}.attention.query.weight",
            "model.layers.{0}.self_attn.k_proj.weight": "blocks.{0}.attention.key.weight",
            "model.layers.{0}.self_attn.v_proj.weight": "blocks.{0}.attention.value.weight",
            "model.layers.{0}.self_attn.o_proj.weight": "blocks.{0}.attention.output.weight",
            "model.layers.{0}.post_attention_layernorm.weight": "blocks.{0}.mlp_norm.weight",
            "model.layers.{0}.mlp.gate_proj.weight": "blocks.{0}.mlp.gate.weight",
            "model.layers.{0}.mlp.up_proj.weight": "blocks.{0}.mlp.up.weight",
            "model.layers.{0}.mlp.down_proj.weight": "blocks.{0}.mlp.down.weight",
            "model.norm.weight": "norm.weight",
            "lm_head.weight": "head.weight",
            "model.layers.{0}.self_attn.rotary_emb.inv_freq": None,  # computed, in checkpoints of 2023
        },
        arguments,
        config,
    )
}
