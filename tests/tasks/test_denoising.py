"""What is noisy becomes clean by one interface, of photographs and of texts alike: BERT is a denoising auto-encoder."""

import torch

from thalweg.build import build
from thalweg.data.degradation import noise
from thalweg.data.pretraining import Pretraining
from thalweg.data.streams import TensorStream
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.models.language.bert import BERT
from thalweg.models.language.masked import MaskedEncoder
from thalweg.models.vision.dncnn import DnCNN
from thalweg.tasks.masked_modelling import MaskedModelling
from thalweg.tasks.restoration import Restoration
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

PARAGRAPHS = [" . ".join([" ".join([number] * 6)] * 4) + " ." for number in ("one", "two", "three", "four") for _ in range(8)]


def photographs():
    """Stripes of two greys, and noise on them."""
    clean = (torch.arange(24) // 4 % 2 * 100 + 70).to(torch.uint8).expand(64, 1, 24, 24)
    stream = TensorStream({"image": clean}, 16, shuffle=True, augment=[noise(0.15)])
    task = build(Restoration, model=build(DnCNN, num_layers=4, width=16, in_channels=1))
    return task, stream, stream.batch(0)["image"][:4], clean[:4]


def texts():
    tokenizer = learn_wordpieces(PARAGRAPHS, 60)
    pieces = WordPieces(tokenizer, marks=True)
    model = build(BERT, vocab_size=len(pieces), context=40, embed_dim=32, num_layers=1, num_heads=2, dropout=0.0)
    task = build(MaskedModelling, model=build(MaskedEncoder, backbone=model), tokenizer=tokenizer, frequent=6)
    clean = [" ".join([number] * 6) for number in ("one", "two", "three", "four")]
    degraded = [text.replace(f" {text.split()[0]} ", " [MASK] ", 1) for text in clean]
    return task, Pretraining(PARAGRAPHS, pieces, 16, context=40, shuffle=True), degraded, clean


def distance(one, other):
    """How far two things of a kind are from each other."""
    if isinstance(one, torch.Tensor):
        return float((one.float() - other.float()).abs().mean())
    return sum(a != b for text, true in zip(one, other, strict=True) for a, b in zip(text.split(), true.split(), strict=True))


def test_photographs_and_texts_are_restored_through_the_same_calls():
    for kind, made in (("image", photographs), ("text", texts)):
        torch.manual_seed(0)
        task, stream, degraded, clean = made()
        training = Training(Experiment(task=task, train=stream, steps=250, optimizer=adamw(4e-3), clip=1.0), precision="fp32")
        before = dict(evaluate(training, stream))["loss" if kind == "text" else "psnr"]
        for _ in training:
            pass
        after = dict(evaluate(training, stream))["loss" if kind == "text" else "psnr"]
        assert (after < 0.5 * before) if kind == "text" else (after > before + 6)
        restored = task.eval().predict({kind: degraded})[kind]
        assert type(restored) is type(degraded)
        assert distance(restored, clean) < 0.5 * distance(degraded, clean)
