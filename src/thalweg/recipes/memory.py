"""Recipes for networks that must remember."""

from typing import Literal

from thalweg.build import build
from thalweg.data.analogies import Maps, maps
from thalweg.data.memory import Copies, copies, marked_sums, symbols
from thalweg.data.stories import WORDS, stories, story_tensors
from thalweg.data.streams import TensorStream
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.models.sequence.reader import Reader
from thalweg.models.sequence.reading_head import ReadingHead
from thalweg.models.sequence.recall import AttentionRecall, LSTMRecall
from thalweg.models.sequence.turing import NeuralTuringMachine
from thalweg.tasks.answering import Answering
from thalweg.tasks.copying import Copying
from thalweg.tasks.in_context import InContext
from thalweg.tasks.recall import Recall
from thalweg.tasks.regression import Regression
from thalweg.training import Experiment
from thalweg.training.optimisers import adam, adamw, muon
from thalweg.training.schedules import linear, warmup


def ntm_copy(*, most: int = 20, test_length: int = 40, examples: int = 100_000, epochs: float = 1, batch_size: int = 32,
             hidden_dim: int = 100, places: int = 128, width: int = 20, lr: float = 3e-3) -> Experiment:  # fmt: skip
    """A Neural Turing Machine learns to copy 1 to 20 vectors of bits, and then copies twice as many.   LEE

    test_length: how many vectors it is tested on.   places, width: of its memory.
    """
    bits = 8
    model = build(NeuralTuringMachine, in_features=bits + 1, out_features=bits, hidden_dim=hidden_dim, places=places,
                  width=width)  # fmt: skip
    valid, test = (TensorStream(copies(200, time, time, bits, time), 100) for time in (most, test_length))
    return Experiment(task=build(Copying, model=model, bits=bits), train=Copies(examples, 1, most, bits, batch_size),
                      valid=valid, test=test, epochs=epochs, optimizer=adam(lr), schedule=warmup(0.02, linear()), clip=10.0,
                      monitor="loss", evaluate_every=500)  # fmt: skip


def recall_by_lag(*, time: int = 256, kinds: int = 4, examples: int = 20_000, epochs: float = 4, batch_size: int = 64,
                  hidden_dim: int = 128, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """An LSTM and attention read 256 random symbols; what of them do they still know at the end?   LEE: RNN, Self-Attention

    One picture shows what share is recalled over how many places; another how long it takes to read.
    """
    train, test = (symbols(count, time, kinds, seed) for seed, count in enumerate((examples, 500)))
    sizes = {"vocab_size": kinds, "time": time, "hidden_dim": hidden_dim}
    task = build(Recall, lstm=build(LSTMRecall, **sizes), attention=build(AttentionRecall, **sizes), longest=time)
    return Experiment(task=task, train=TensorStream(train, batch_size, shuffle=True), test=TensorStream(test, 100),
                      epochs=epochs, optimizer={"players.lstm": adam(lr), "players.attention": adam(lr)},
                      schedule=warmup(0.05, linear()), clip=1.0, evaluate_every=300)  # fmt: skip


def reading_head_stories(*, hops: int = 3, guide: float = 1.0, least: int = 4, most: int = 12, examples: int = 10_000,
                         epochs: float = 10, batch_size: int = 64, hidden_dim: int = 64,
                         lr: float = 3e-3) -> Experiment:  # fmt: skip
    """Where is the apple? A head reads who took it, and then where that one went.   LEE: Attention-based Model

    hops: how often the head reads.   guide: how much it counts that it reads where the answer stands, 0 not to tell it.
    least, most: sentences of a story; those of the test are others.
    """
    train, valid, test = (story_tensors(stories(count, least, most, seed), most)
                          for seed, count in enumerate((examples, 1000, 1000)))  # fmt: skip
    model = build(ReadingHead, vocab_size=1 + len(WORDS), hidden_dim=hidden_dim, hops=hops)
    return Experiment(task=build(Answering, model=model, guide=guide), train=TensorStream(train, batch_size, shuffle=True),
                      valid=TensorStream(valid, 500), test=TensorStream(test, 500), epochs=epochs, optimizer=adam(lr),
                      schedule=warmup(0.05, linear()), clip=1.0, monitor="loss")  # fmt: skip


def adding_problem(*, cell: Literal["rnn", "irnn", "gru", "lstm"] = "irnn", time: int = 100, examples: int = 50_000,
                   epochs: float = 10, batch_size: int = 50, hidden_dim: int = 100,
                   lr: float = 1e-3) -> Experiment:  # fmt: skip
    """Two of 100 numbers are marked, somewhere in each half: what is their sum? The rest must not matter.   LEE LSTM

    Saying 1 to everything has rmse 0.41.   cell: irnn is a plain network of rectifiers that starts as the identity.
    """
    train, valid, test = (marked_sums(count, time, seed) for seed, count in enumerate((examples, 1000, 1000)))
    model = build(Reader, in_features=2, out_features=1, hidden_dim=hidden_dim, cell=cell)
    return Experiment(task=build(Regression, model=model, targets=["sum"]), train=TensorStream(train, batch_size, shuffle=True),
                      valid=TensorStream(valid, 250), test=TensorStream(test, 250), epochs=epochs, optimizer=adam(lr),
                      schedule=warmup(0.05, linear()), clip=0.1, monitor="rmse")  # fmt: skip


def in_context_maps(*, shots: int = 24, signs: int = 8, answers: int = 8, examples: int = 40_000, epochs: float = 1,
                    batch_size: int = 64, embed_dim: int = 64, num_layers: int = 2,
                    lr: float = 0.02) -> Experiment:  # fmt: skip
    """A small GPT learns to learn: what a sign means stands in the prompt, in every prompt something else.   LBDL 7.1

    shots: examples before the last question.   signs, answers: how many there are.   examples: texts of a pass.
    The maps of the test were never seen; one picture shows how many answers are right after none, one, two ... examples.
    """
    vocab_size = 1 + signs + answers
    model = build(RotaryGPT, vocab_size=vocab_size, embed_dim=embed_dim, num_layers=num_layers, num_heads=2)
    task = build(InContext, model=model, shots=shots, signs=signs, answers=answers)
    valid, test = (TensorStream(maps(count, shots, signs, answers, seed, held_out=True), 250)
                   for seed, count in ((1, 500), (2, 2000)))  # fmt: skip
    return Experiment(task=task, train=Maps(examples, shots, signs, answers, batch_size), valid=valid, test=test, epochs=epochs,
                      optimizer=muon(lr, other=adamw(0.15 * lr, betas=(0.9, 0.95), weight_decay=0.0)),
                      schedule=warmup(0.05, linear()), monitor="loss")  # fmt: skip
