"""Writes small GGUF files, by the format's description, for tests."""

import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.models.language.llama import PUBLIC, Llama, config
from thalweg.weights import to_public

NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}  # fmt: skip


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words.encode())) + words.encode()


def value(what: Any) -> bytes:
    """Type and bytes of an entry of the metadata."""
    if isinstance(what, bool):
        return struct.pack("<I?", 7, what)
    if isinstance(what, int):
        return struct.pack("<II", 4, what)
    if isinstance(what, float):
        return struct.pack("<If", 6, what)
    if isinstance(what, str):
        return struct.pack("<I", 8) + text(what)
    inner = value(what[0])[:4]
    return struct.pack("<I", 9) + inner + struct.pack("<Q", len(what)) + b"".join(value(each)[4:] for each in what)


def write(path: Path, metadata: dict[str, Any], tensors: dict[str, tuple[int, list[int], bytes]]) -> Path:
    """tensors: name to type, shape (rows first) and bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(text(name) + value(what) for name, what in metadata.items())
    body = b""
    for name, (kind, shape, held) in tensors.items():
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", kind, len(body))
        body += held + b"\0" * (-len(held) % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return path


def float32(tensor: Tensor) -> tuple[int, list[int], bytes]:
    return 0, list(tensor.shape), tensor.contiguous().numpy().tobytes()


def q4_1(tensor: Tensor) -> tuple[int, list[int], bytes]:
    """Every 32 numbers as a scale, a least value and four bits each."""
    blocks = tensor.reshape(-1, 32)
    low = blocks.amin(1, keepdim=True).half()
    scale = ((blocks.amax(1, keepdim=True) - low) / 15).half()
    number = ((blocks - low.float()) / scale.float()).round().clamp(0, 15).byte()
    packed = number[:, :16] | number[:, 16:] << 4
    parts = zip(scale.numpy(), low.numpy(), packed.numpy(), strict=True)
    return 3, list(tensor.shape), b"".join(a.tobytes() + b.tobytes() + c.tobytes() for a, b, c in parts)


def q8_0(tensor: Tensor) -> tuple[int, list[int], bytes]:
    """Every 32 numbers as a scale and eight bits each."""
    blocks = tensor.reshape(-1, 32)
    scale = (blocks.abs().amax(1, keepdim=True) / 127).half()
    number = (blocks / scale.float()).round().to(torch.int8)
    return (
        8,
        list(tensor.shape),
        b"".join(a.tobytes() + b.tobytes() for a, b in zip(scale.numpy(), number.numpy(), strict=True)),
    )


def llama(path: Path, model: Llama, metadata: dict[str, Any], store: Any = float32) -> Path:
    """The file that llama.cpp's converter would write for a model: rows of queries and keys as neighbouring pairs."""
    said = config(model)
    held = {}
    for name, tensor in to_public(model.state_dict(), PUBLIC["transformers"].table).items():
        inner = name.removeprefix("model.layers.")
        if inner != name:
            number, part = inner.removesuffix(".weight").split(".", 1)
            ours = f"blk.{number}.{NAMES[part]}.weight"
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                tensor = tensor.unflatten(0, (-1, 2, model.head_dim // 2)).transpose(1, 2).flatten(0, 2)
        else:
            ours = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                    "lm_head.weight": "output.weight"}[name]  # fmt: skip
        held[ours] = store(tensor) if tensor.ndim == 2 else float32(tensor)
    known = {
        "general.architecture": "llama", "llama.context_length": said["max_position_embeddings"],
        "llama.embedding_length": said["hidden_size"], "llama.block_count": said["num_hidden_layers"],
        "llama.feed_forward_length": said["intermediate_size"], "llama.attention.head_count": said["num_attention_heads"],
        "llama.attention.head_count_kv": said["num_key_value_heads"], "llama.rope.freq_base": said["rope_theta"],
        "llama.rope.dimension_count": said["head_dim"], "llama.attention.layer_norm_rms_epsilon": said["rms_norm_eps"],
    }  # fmt: skip
    return write(path, known | metadata, held)
