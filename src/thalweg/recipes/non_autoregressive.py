"""Recipes that translate without waiting for the word before: a name in, an experiment out.

teacher: the folder of a transformer-tatoeba run. The students then learn what it writes instead of what people wrote
(sequence-level distillation), read and write its words, and it chooses where there are several drafts.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from thalweg.build import build, load
from thalweg.data.alignment import ibm_model_1
from thalweg.data.pairs import Corpus, Pair, Pairs, Words, frequent, read_pairs, tatoeba_fra_eng
from thalweg.models.sequence.parallel import (
    FertilityTransformer,
    InsertionTransformer,
    Kermit,
    LengthTransformer,
    LevenshteinTransformer,
    ParallelTransformer,
)
from thalweg.tasks.connectionist_translation import ConnectionistTranslation
from thalweg.tasks.fertility import FertilePairs, Fertility, FertilityByReward, looked_at
from thalweg.tasks.insertion import Editing, Insertion, JointInsertion
from thalweg.tasks.non_autoregressive import AllAtOnce, MaskPrediction, ParallelTransduction, Refinement, rewritten
from thalweg.tasks.transduction import Transduction
from thalweg.training import Experiment
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup
from thalweg.weights import write_whole

VALID = 250  # pairs that choose the weights: each is translated in dozens of passes, by every way that is measured
Sizes = dict[str, Any]
Align = Callable[..., list[Tensor]]


def _corpus(teacher: Path | None) -> tuple[Corpus, dict[str, Any]]:
    """The pairs to learn from, and what a task must know of them: its words, and its teacher."""
    corpus = tatoeba_fra_eng(longest=8)
    if teacher is None:
        known = [frequent((pair[side] for pair in corpus.train), 4) for side in (0, 1)]
        return corpus, {"source_words": known[0], "target_words": known[1]}
    task = load(teacher / "model")
    if not isinstance(task, Transduction):
        raise ValueError(f"teacher={teacher}: a {type(task).__name__}, expected a run of transformer-tatoeba or the like")
    words = {f"{side}_words": " ".join(getattr(task, side).words[4:]) for side in ("source", "target")}
    return replace(corpus, train=_taught(task, teacher, corpus.train)), {**words, "teacher": task.model}


def _taught(task: Transduction, folder: Path, pairs: list[Pair]) -> list[Pair]:
    """What the teacher writes of the sources; kept in its folder, since it takes minutes and every student asks for it."""
    path, model = folder / "written.tsv", folder / "model" / "model.safetensors"
    if not path.exists() or path.stat().st_mtime < model.stat().st_mtime:
        lines = "\n".join("\t".join(pair) for pair in rewritten(task, pairs)) + "\n"
        write_whole(path, lambda part: part.write_text(lines, encoding="utf8"))
    return read_pairs(path.read_text(encoding="utf8").splitlines())[0]


def _parallel(make: Callable[[Sizes, int], nn.Module], task: type[ParallelTransduction], teacher: Path | None, *,
              epochs: float, batch_size: int, embed_dim: int, num_layers: int, dropout: float, lr: float,
              align: Align | None = None, measured: int | None = None, **of_task: Any) -> Experiment:  # fmt: skip
    """Pairs are learned by what `make` builds of the sizes of a network and the length of the longest target.

    align: finds for every word of a target the place that it comes from, where the task asks for fertilities; it is given the
    teacher, sources and targets, and how many of them, the first, are there to learn from.
    measured: see mask-predict-tatoeba.
    """
    corpus, known = _corpus(teacher)
    corpus = replace(corpus, valid=corpus.valid[:VALID]).measured_on(measured)
    words = [Words(known[f"{side}_words"]) for side in ("source", "target")]
    everything = [*corpus.train, *corpus.valid, *corpus.test]
    source, target = ([tokens.encode(pair[side]) for pair in everything] for side, tokens in enumerate(words))
    aligned = None if align is None else align(known.get("teacher"), source, target, len(corpus.train))

    def stream(start: int, end: int, batch_size: int, shuffle: bool = False) -> Pairs:
        if aligned is None:
            return Pairs(source[start:end], target[start:end], batch_size, shuffle=shuffle)
        return FertilePairs(source[start:end], target[start:end], aligned[start:end], batch_size, shuffle=shuffle)

    learned, last = len(corpus.train), len(corpus.train) + len(corpus.valid)
    train, valid = stream(0, learned, batch_size, shuffle=True), stream(learned, last, 250)
    longest = 10 + max(map(len, train.ragged["target_tokens"]))
    sizes = {"source_vocab_size": len(words[0]), "target_vocab_size": len(words[1]), "embed_dim": embed_dim,
             "num_layers": num_layers, "num_heads": 4, "hidden_dim": 512, "dropout": dropout}  # fmt: skip
    learner = build(task, model=make(sizes, longest), longest=longest, **known, **of_task)
    notes = {"pairs": f"train {learned:,}, valid {valid.size:,}, test {len(everything) - last:,}",
             "targets": "what people wrote" if teacher is None else f"what {teacher} wrote"}  # fmt: skip
    return Experiment(task=learner, train=train, valid=valid, test=stream(last, len(everything), 250), epochs=epochs,
                      optimizer=adamw(lr, weight_decay=1e-2), schedule=warmup(0.05, linear()), clip=1.0, monitor="bleu",
                      notes=notes)  # fmt: skip


def _with_length(sizes: Sizes, longest: int) -> nn.Module:
    return build(LengthTransformer, network=build(ParallelTransformer, **sizes), longest=longest)


def nat_tatoeba(*, teacher: Path | None = None, ends: Literal["length", "end"] = "length", epochs: float = 6,
                batch_size: int = 128, embed_dim: int = 192, num_layers: int = 3, dropout: float = 0.1,
                lr: float = 2e-3) -> Experiment:  # fmt: skip
    """English to French with all words at once, each by itself.   LEE Transformer, NAT

    teacher: folder of a transformer-tatoeba run, to learn what it writes
    ends: how long a translation is says a head on the source ("length"), or an <eos> in the translation ("end")
    """
    return _parallel(_with_length, AllAtOnce, teacher, epochs=epochs, batch_size=batch_size, embed_dim=embed_dim,
                     num_layers=num_layers, dropout=dropout, lr=lr, ends=ends)  # fmt: skip


def mask_predict_tatoeba(*, teacher: Path | None = None, epochs: float = 6, batch_size: int = 128, embed_dim: int = 192,
                         num_layers: int = 3, dropout: float = 0.1, lr: float = 2e-3,
                         measured: int | None = None) -> Experiment:  # fmt: skip
    """English to French by Mask-Predict: all words at once, the unsure ones again.   LEE NAT

    teacher: folder of a transformer-tatoeba run, to learn what it writes
    measured: pairs for validation, and pairs for tests, that are translated; if not given, 250 and all
    """
    return _parallel(_with_length, MaskPrediction, teacher, epochs=epochs, batch_size=batch_size, embed_dim=embed_dim,
                     num_layers=num_layers, dropout=dropout, lr=lr, measured=measured)  # fmt: skip


def refinement_tatoeba(*, teacher: Path | None = None, epochs: float = 6, batch_size: int = 128, embed_dim: int = 192,
                       num_layers: int = 3, dropout: float = 0.1, lr: float = 2e-3,
                       measured: int | None = None) -> Experiment:  # fmt: skip
    """English to French by drafts, every word written anew from the draft before.   LEE NAT

    teacher: folder of a transformer-tatoeba run, to learn what it writes
    measured: pairs for validation, and pairs for tests, that are translated; if not given, 250 and all
    """
    return _parallel(_with_length, Refinement, teacher, epochs=epochs, batch_size=batch_size, embed_dim=embed_dim,
                     num_layers=num_layers, dropout=dropout, lr=lr, measured=measured)  # fmt: skip


def fertility_tatoeba(*, teacher: Path | None = None, labels: Literal["aligner", "attention"] = "aligner",
                      converged: Path | None = None, epochs: float = 6, batch_size: int = 128, embed_dim: int = 192,
                      num_layers: int = 3, dropout: float = 0.1, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """English to French by fertility: how many words each word becomes is planned first.   LEE NAT

    teacher: folder of a transformer-tatoeba run, to learn what it writes
    labels: the fertilities to learn are found by IBM model 1, or by where the teacher looks
    converged: folder of a run of this recipe, whose fertilities now learn from reward (REINFORCE)
    """
    if labels == "attention" and teacher is None:
        raise ValueError("labels='attention': expected a teacher, whose attention it is")

    def align(model: nn.Module | None, source: list[Tensor], target: list[Tensor], learned: int) -> list[Tensor]:
        unended = [sentence[:-1] for sentence in target]
        return looked_at(model, source, unended) if labels == "attention" else ibm_model_1(source, unended, learned=learned)

    def make(sizes: Sizes, longest: int) -> nn.Module:
        if converged is not None:
            return load(converged / "model").model  # type: ignore[return-value]
        return build(FertilityTransformer, network=build(ParallelTransformer, **sizes))

    task = Fertility if converged is None else FertilityByReward
    return _parallel(make, task, teacher, epochs=epochs, batch_size=batch_size, embed_dim=embed_dim, num_layers=num_layers,
                     dropout=dropout, lr=lr, align=align)  # fmt: skip


def ctc_translation_tatoeba(*, teacher: Path | None = None, copies: int = 3, epochs: float = 6, batch_size: int = 128,
                            embed_dim: int = 192, num_layers: int = 3, dropout: float = 0.1,
                            lr: float = 2e-3) -> Experiment:  # fmt: skip
    """English to French by CTC: a long row at once, in which blanks and repeated words do not count.   LEE NAT

    teacher: folder of a transformer-tatoeba run, to learn what it writes
    copies: places of the row for each word of the source
    """
    return _parallel(lambda sizes, _: build(ParallelTransformer, **sizes), ConnectionistTranslation, teacher, epochs=epochs,
                     batch_size=batch_size, embed_dim=embed_dim, num_layers=num_layers, dropout=dropout, lr=lr,
                     copies=copies)  # fmt: skip


def insertion_tatoeba(*, teacher: Path | None = None, epochs: float = 6, batch_size: int = 128, embed_dim: int = 192,
                      num_layers: int = 3, dropout: float = 0.1, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """English to French by an Insertion Transformer: from the middle of every gap on, in log-many passes.   LEE NAT

    teacher: folder of a transformer-tatoeba run, to learn what it writes
    """
    return _parallel(lambda sizes, _: build(InsertionTransformer, network=build(ParallelTransformer, **sizes)), Insertion,
                     teacher, epochs=epochs, batch_size=batch_size, embed_dim=embed_dim, num_layers=num_layers,
                     dropout=dropout, lr=lr)  # fmt: skip


def levenshtein_tatoeba(*, teacher: Path | None = None, epochs: float = 6, batch_size: int = 128, embed_dim: int = 192,
                        num_layers: int = 3, dropout: float = 0.1, lr: float = 2e-3) -> Experiment:  # fmt: skip
    """English to French by a Levenshtein Transformer, which takes words out and puts others in, from any draft.   LEE NAT

    teacher: folder of a transformer-tatoeba run, to learn what it writes
    """
    return _parallel(lambda sizes, _: build(LevenshteinTransformer, network=build(ParallelTransformer, **sizes)), Editing,
                     teacher, epochs=epochs, batch_size=batch_size, embed_dim=embed_dim, num_layers=num_layers,
                     dropout=dropout, lr=lr)  # fmt: skip


def kermit_tatoeba(*, epochs: float = 6, batch_size: int = 128, embed_dim: int = 192, num_layers: int = 6, dropout: float = 0.1,
                   lr: float = 2e-3) -> Experiment:  # fmt: skip
    """English to French and back by KERMIT, one model of both that inserts on either side.   LEE NAT"""
    return _parallel(lambda sizes, _: build(Kermit, **sizes), JointInsertion, None, epochs=epochs, batch_size=batch_size,
                     embed_dim=embed_dim, num_layers=num_layers, dropout=dropout, lr=lr)  # fmt: skip
