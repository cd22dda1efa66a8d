"""Translation with a Transformer (2017) against transformers' Marian of the same weights: beam search, and a training step.

Four layers a side, 256 wide, 8,000 tokens. Beam search: 64 sentences of 16 tokens, five beams, 40 tokens each; once both in
float32, where it is checked that they write the same, and once ours as `thalweg run` measures translations, in bf16 where it is
native, against the peer as it comes and in bf16. Training: 128 pairs of 16 and 24 tokens, in the three ways of models.py.
python benchmarks/translation.py      Needs timm and transformers.
"""

import copy
import json
import time

import torch
from models import BF16, by_hand, compared, ours
from torch.nn.functional import cross_entropy
from transformers import MarianConfig, MarianMTModel

from thalweg.decoding.search import beam_search
from thalweg.layers.position import sinusoidal
from thalweg.models.sequence.transformer import Transformer
from thalweg.training import Task
from thalweg.training.machine import keep_memory

WORDS, WIDTH, HIDDEN, LAYERS, HEADS, BEAM, LENGTH, BATCH = 8000, 256, 512, 4, 4, 5, 40, 64
PAD, BOS, EOS = 0, 1, 2


def our_model() -> Transformer:
    return Transformer(WORDS, WORDS, WIDTH, LAYERS, HEADS, HIDDEN, dropout=0.1, norm_first=False)


def peer_model() -> MarianMTModel:
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder")
             for name, value in (("layers", LAYERS), ("attention_heads", HEADS), ("ffn_dim", HIDDEN))}  # fmt: skip
    return MarianMTModel(MarianConfig(
        vocab_size=WORDS, d_model=WIDTH, **sides, activation_function="relu", scale_embedding=True, dropout=0.1,
        attention_dropout=0.1, max_position_embeddings=128, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        decoder_start_token_id=BOS, forced_eos_token_id=None, share_encoder_decoder_embeddings=False,
        tie_word_embeddings=True,
    ))  # fmt: skip


def same_weights(model: Transformer, peer: MarianMTModel) -> None:
    """The peer gets the weights of ours."""
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
    parts = {"attention": "self_attn", "attention_norm": "self_attn_layer_norm", "cross": "encoder_attn",
             "cross_norm": "encoder_attn_layer_norm", "up": "fc1", "down": "fc2", "mlp_norm": "final_layer_norm"}  # fmt: skip
    held = {"final_logits_bias": torch.zeros(1, WORDS), "lm_head.weight": model.target_embedding.weight}
    for side, embedding in (("encoder", model.source_embedding), ("decoder", model.target_embedding)):
        held[f"model.{side}.embed_tokens.weight"] = embedding.weight
        held[f"model.{side}.embed_positions.weight"] = sinusoidal(0, 128, WIDTH, embedding.weight)
        for name, weight in getattr(model, side).state_dict().items():
            number, part, *leaf = name.split(".")
            held[".".join([f"model.{side}.layers", number, parts[part], *(names.get(one, one) for one in leaf)])] = weight
    peer.load_state_dict(held)


def searching() -> dict:
    torch.manual_seed(0)
    model, peer = our_model().eval(), peer_model().eval()
    same_weights(model, peer)
    narrow = copy.deepcopy(peer).bfloat16() if BF16 else peer
    source = torch.randint(3, WORDS, (BATCH, 16))
    mask = torch.ones_like(source, dtype=torch.bool)

    def ours_writes(native: bool = False) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=native and BF16):
            return beam_search(model, source, mask, bos=BOS, eos=EOS, pad=PAD, beam=BEAM, length=LENGTH, length_penalty=1.0)[0]

    def peer_writes(peer: MarianMTModel) -> torch.Tensor:
        return peer.generate(source, attention_mask=mask.long(), num_beams=BEAM, max_new_tokens=LENGTH, length_penalty=1.0)

    def timed(write, *how) -> float:
        start = time.perf_counter()
        write(*how)
        return time.perf_counter() - start

    alike = [torch.equal(a, b) for a, b in zip(ours_writes()[:, 0], peer_writes(peer)[:, 1:], strict=True)]
    same = {"ours": lambda: timed(ours_writes), "default": lambda: timed(peer_writes, peer)}
    native = {"ours": lambda: timed(ours_writes, True), "default": same["default"], "best": lambda: timed(peer_writes, narrow)}
    work = BATCH * LENGTH
    return {"beam_search_fp32_transformers": {"alike": sum(alike) / BATCH} | compared(same, work),
            "beam_search_transformers": compared(native, work)}  # fmt: skip


class Translating(Task):
    """Transduction without its metrics and pictures."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def loss(self, batch):
        logits = self.model(batch["source_tokens"], batch["source_mask"], batch["target_tokens"][:, :-1])
        right = batch["target_tokens"][:, 1:]
        return cross_entropy(logits.flatten(0, 1).float(), right.flatten(), reduction="sum"), right.numel()


def learning() -> dict:
    source, target = torch.randint(3, WORDS, (128, 16)), torch.randint(3, WORDS, (128, 25))
    mask = torch.ones_like(source, dtype=torch.bool)
    batch = {"source_tokens": source, "source_mask": mask, "target_tokens": target}

    def loss(model, source, target):
        logits = model(input_ids=source, decoder_input_ids=target[:, :-1]).logits
        return cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())

    return compared({
        "ours": lambda: ours(Translating(our_model()), batch),
        "default": lambda: by_hand(peer_model(), loss, [source, target], best=False),
        "best": lambda: by_hand(peer_model(), loss, [source, target], best=True),
    }, 8 * target[:, 1:].numel())  # fmt: skip


if __name__ == "__main__":
    keep_memory()
    print(json.dumps({
        "what": "target tokens a second; over: how many times faster ours is; alike: share of sentences written alike",
        **searching(), "training_transformers": learning(),
        "target": "beam search: default >= 3; training: default >= 1.5, best >= 1",
    }))  # fmt: skip
