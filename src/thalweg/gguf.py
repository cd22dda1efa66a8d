"""A GGUF file, the form of llama.cpp, as if it were a public folder: its config.json, its tensors, its tokenizer.

One file holds everything: magic, version, counts, metadata, names and shapes of the tensors, then their numbers in blocks of 32
or more, often of a few bits each: of Q4_1 a block is a scale d and a least value m in half precision, and 32 numbers q of four
bits, w = d q + m; of Q8_0 w = d q, q of eight bits. Queries and keys have their rows in the order of neighbouring pairs, which
Hugging Face and we turn as halves, see `layers.position.rotate`.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from thalweg.weights import Config, CorruptFile, Tensors

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}  # fmt: skip
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}  # fmt: skip


class GGUF:
    """metadata: what the file says of itself.   tensors: name to type, shape (rows first) and place in the file.

    CorruptFile, naming it, if it is none or damaged.
    """

    def __init__(self, path: Path):
        self.path, self.metadata, self.tensors = path, Config(), dict[str, tuple[int, list[int], int]]()
        try:
            with open(path, "rb") as file:
                self._read(file)
        except (struct.error, UnicodeDecodeError, KeyError, OverflowError, MemoryError) as error:
            raise CorruptFile(f"{path} is damaged: {type(error).__name__} {error}") from error

    def _read(self, file: BinaryIO) -> None:
        if file.read(4) != b"GGUF":
            raise CorruptFile(f"{self.path} is not a GGUF file: it does not begin with these letters")
        if (version := _one(file, "I")) not in (2, 3):
            raise CorruptFile(f"{self.path}: version {version} of GGUF, expected 2 or 3")
        tensors, entries = _one(file, "Q"), _one(file, "Q")
        for _ in range(entries):
            name = _string(file)
            self.metadata[name] = _value(file, _one(file, "I"))
        for _ in range(tensors):
            name = _string(file)
            shape = [_one(file, "Q") for _ in range(_one(file, "I"))][::-1]
            self.tensors[name] = _one(file, "I"), shape, _one(file, "Q")
        unit = self.metadata.get("general.alignment", 32)
        self.start = -(-file.tell() // unit) * unit

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32.   ImportError if its type needs the package gguf; CorruptFile if the file ends within it."""
        kind, shape, offset = self.tensors[name]
        block, size, numbers = BLOCKS[kind] if kind in BLOCKS else _other(kind)
        count = prod(shape)
        held = bytearray(count // block * size)
        with open(self.path, "rb") as file:
            file.seek(self.start + offset)
            read = file.readinto(held)
        if count % block or read != len(held):
            raise CorruptFile(f"{self.path} is damaged: it ends within {name}, or its shape {shape} is wrong")
        return numbers(torch.frombuffer(held, dtype=torch.uint8).view(-1, size)).view(shape)

    def config(self) -> Config:
        """The config.json of transformers' LlamaForCausalLM.   ValueError if it says another architecture."""
        known = self.metadata
        if (kind := known.get("general.architecture")) != "llama":
            raise ValueError(f"{self.path} says general.architecture={kind!r} (expected 'llama'): not understood")
        if (kind := known.get("llama.rope.scaling.type", "none")) != "none":
            raise ValueError(f"{self.path} says llama.rope.scaling.type={kind!r} (expected 'none'): not understood")
        heads, width = known["llama.attention.head_count"], known["llama.embedding_length"]
        rope = None
        if "rope_freqs.weight" in self.tensors:  # written for Llama 3.1 alone, whose other numbers the file does not hold
            rope = {"rope_type": "llama3", "factor": float(self.tensor("rope_freqs.weight").max()), "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
        return {
            "model_type": "llama", "hidden_act": "silu", "vocab_size": self.tensors["token_embd.weight"][1][0],
            "max_position_embeddings": known["llama.context_length"], "hidden_size": width, "num_attention_heads": heads,
            "num_key_value_heads": known.get("llama.attention.head_count_kv", heads),
            "num_hidden_layers": known["llama.block_count"], "intermediate_size": known["llama.feed_forward_length"],
            "head_dim": known.get("llama.rope.dimension_count", width // heads), "rope_scaling": rope,
            "rope_theta": known.get("llama.rope.freq_base", 10000.0),
            "tie_word_embeddings": "output.weight" not in self.tensors,
            "rms_norm_eps": known["llama.attention.layer_norm_rms_epsilon"],
        }  # fmt: skip

    def public(self) -> Tensors:
        """All tensors under the names, and in the order of rows, of transformers' LlamaForCausalLM."""
        heads = self.metadata["llama.attention.head_count"]
        shared = self.metadata.get("llama.attention.head_count_kv", heads)
        result = {}
        for name in self.tensors:
            if name == "rope_freqs.weight":
                continue
            tensor, (block, number, part, *_) = self.tensor(name), [*name.split("."), "", "", ""]
            if part in ("attn_q", "attn_k"):
                tensor = tensor.unflatten(0, (heads if part == "attn_q" else shared, -1, 2)).transpose(1, 2).flatten(0, 2)
            inner = f"model.layers.{number}.{NAMES.get(part, part)}.weight" if block == "blk" else name
            result[OUTER.get(name, inner)] = tensor
        return result


def _one(file: BinaryIO, form: str) -> Any:
    return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))[0]


def _string(file: BinaryIO) -> str:
    return file.read(_one(file, "Q")).decode("utf8")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(file)
    if kind != ARRAY:
        return _one(file, SCALARS[kind])
    inner, count = _one(file, "I"), _one(file, "Q")
    if inner in SCALARS:
        form = f"<{count}{SCALARS[inner]}"
        return list(struct.unpack(form, file.read(struct.calcsize(form))))
    return [_value(file, inner) for _ in range(count)]


def _half(blocks: Tensor, place: int) -> Tensor:
    return blocks[:, place : place + 2].contiguous().view(torch.float16).float()


def _four_bits(blocks: Tensor, place: int) -> Tensor:
    """The lower halves of 16 bytes are the first 16 numbers of a block, the upper ones the others."""
    return torch.cat([blocks[:, place:] & 15, blocks[:, place:] >> 4], 1).float()


BLOCKS: dict[int, tuple[int, int, Callable[[Tensor], Tensor]]] = {  # type: numbers and bytes of a block, and its numbers
    0: (1, 4, lambda blocks: blocks.view(torch.float32)),
    1: (1, 2, lambda blocks: blocks.view(torch.float16).float()),
    2: (32, 18, lambda blocks: (_four_bits(blocks, 2) - 8).mul_(_half(blocks, 0))),  # Q4_0
    3: (32, 20, lambda blocks: torch.addcmul(_half(blocks, 2), _four_bits(blocks, 4), _half(blocks, 0))),  # Q4_1
    8: (32, 34, lambda blocks: blocks[:, 2:].view(torch.int8) * _half(blocks, 0)),  # Q8_0
    30: (1, 2, lambda blocks: blocks.view(torch.bfloat16).float()),
}


def _other(kind: int) -> tuple[int, int, Callable[[Tensor], Tensor]]:
    """Any other type, by the package of llama.cpp's authors."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise ImportError(f"a tensor of type {kind} in a GGUF file needs: pip install 'thalweg[gguf]'") from error
    found = GGMLQuantizationType(kind)
    return *GGML_QUANT_SIZES[found], lambda blocks: torch.from_numpy(dequantize(blocks.numpy(), found))
