"""Translation without waiting for the word before: all places at once, or all in a few passes.   LEE NAT

p(y | x) = p(T | x) prod_t p(y_t | x): one pass writes everything, and no word knows which others were chosen. Where a source
has several good translations, words of different ones get mixed (the multi-modality problem). What helps: targets that a
teacher wrote, of which there is one a source (`AllAtOnce` learns much better from them), further passes that see a draft
(`MaskPrediction`), or several drafts, of which a teacher chooses.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import MetricCollection
from torchmetrics.text import BLEUScore

from thalweg.data.pairs import BOS, EOS, PAD, Pair, Words
from thalweg.decoding.parallel import Reader, ignore_after_end, mask_predict, refine, rescore
from thalweg.metrics import MeanLoss, PhraseBLEU
from thalweg.tasks.transduction import Transduction
from thalweg.training import Task
from thalweg.vocabulary import Batch, EncoderDecoder


def plain(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Sentences that end in <eos> without it, and where their words are.   [batch time] each"""
    mask = (tokens[:, :-1] != PAD) & (tokens[:, :-1] != EOS)
    return tokens[:, :-1].masked_fill(~mask, PAD), mask


def unframed(batch: Batch) -> tuple[Tensor, Tensor]:
    """The words of the targets without <bos> and <eos>, and where they are.   [batch time] each"""
    return plain(batch["target_tokens"][:, 1:])


class ParallelTransduction(Task):
    """What all that write in parallel have in common: how they are measured and asked, and that a teacher may judge.

    batch: see `Transductions`.   source_words, target_words: see `Words`.   longest: words of a target at most.
    teacher: an encoder-decoder that writes a word after the other; it does not learn, it chooses between drafts.
    metrics: bleu as in `Transduction`, and of each of the `ways` to write: passes (bleu_4) or drafts (bleu_4_drafts);
    length_error: words that a translation is too short or too long by.
    """

    reads = "text"
    model: Any
    ways: Mapping[str, dict[str, int]] = {}

    def __init__(self, model: nn.Module, source_words: str, target_words: str, longest: int, teacher: nn.Module | None = None):
        super().__init__()
        self.model, self.longest = model, longest
        self.teacher = teacher if teacher is None else teacher.requires_grad_(False)
        self.source, self.target = Words(source_words), Words(target_words)
        metrics: dict[str, Any] = {
            "loss": MeanLoss(),
            "bleu": BLEUScore(),
            "phrase_bleu": PhraseBLEU(),
            "length_error": MeanLoss(),
        }
        self.metrics = MetricCollection(metrics | {name: BLEUScore() for name in self.ways}, compute_groups=False)

    def write(self, *sources: Any, **how: Any) -> Tensor:
        """The targets of source_tokens and source_mask, [batch read] each -> [batch time], padding behind them."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it writes")

    def best(self, source_tokens: Tensor, source_mask: Tensor, drafts: Tensor, score: Tensor) -> Tensor:
        """The draft that the teacher prefers; without a teacher that of the best score.   [batch draft time] -> [batch time]"""
        if self.teacher is not None and drafts.shape[1] > 1:
            teacher = cast(EncoderDecoder, self.teacher)
            score = rescore(teacher, source_tokens, source_mask, drafts, bos=BOS, eos=EOS, pad=PAD)
        return drafts[torch.arange(len(drafts), device=drafts.device), score.argmax(1)]

    def evaluate(self, batch: Batch) -> None:
        total, count = self.loss(batch)
        self.metrics["loss"].update(total / count, count)
        references = [self.target.decode(row) for row in batch["target_tokens"].tolist()]
        for name, how in {"bleu": {}, **self.ways}.items():
            written = self.write(batch["source_tokens"], batch["source_mask"], **how)
            translations = [self.target.decode(row) for row in written.tolist()]
            self.metrics[name].update(translations, [[reference] for reference in references])
            if name == "bleu":
                self.metrics["phrase_bleu"].update(translations, references)
                lengths = (torch.tensor([len(text.split()) for text in side]) for side in (translations, references))
                self.metrics["length_error"].update(torch.sub(*lengths).abs().float())

    def translate(self, texts: list[str], **how: int) -> dict[str, Any]:
        """What `predict` answers: what `write` makes of texts."""
        sources = [self.source.encode(text) for text in texts]
        tokens = pad_sequence(sources, batch_first=True, padding_value=PAD).to(next(self.model.parameters()).device)
        return {"text": [self.target.decode(row) for row in self.write(tokens, tokens != PAD, **how).tolist()]}


def likely_lengths(said: Tensor, drafts: int) -> Tensor:
    """The most probable lengths, likeliest first.   said: logits of 0, 1, ... [batch length] -> [batch draft]"""
    return said[:, 1:].topk(min(drafts, said.shape[1] - 1)).indices + 1  # a target has a word at least


def up_to(lengths: Tensor) -> Tensor:
    """Masks of so many places.   [*any] -> [*any time]"""
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[..., None]


def random_order(mask: Tensor) -> Tensor:
    """A random rank 0, 1, ... of each real place of a row; the others come behind.   [batch time]"""
    return torch.rand(mask.shape, device=mask.device).masked_fill(~mask, torch.inf).argsort(1).argsort(1)


class AllAtOnce(ParallelTransduction):
    """Every word by itself, from a row of <bos> alone: one pass writes the whole target.

    loss = - sum_t log p(y_t | x) - log p(T | x).   How long the target is says
    ends = "length": the likeliest length, of a head of its own; or
    ends = "end": the target: it is written at all of `longest` places, and what follows the first <eos> is ignored.
    model: a `LengthTransformer`.   drafts: of how many lengths, the likeliest first.   ValueError for other ends.   LEE NAT
    """

    ways: Mapping[str, dict[str, int]] = {"bleu_4_drafts": {"drafts": 4}}

    def __init__(
        self,
        model: nn.Module,
        source_words: str,
        target_words: str,
        longest: int,
        teacher: nn.Module | None = None,
        ends: str = "length",
    ):
        if ends not in ("length", "end"):
            raise ValueError(f"ends={ends!r}: expected length or end")
        super().__init__(model, source_words, target_words, longest, teacher)
        self.ends = ends

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        words, mask = unframed(batch)
        if self.ends == "end":
            words = pad(words.masked_fill(~mask, EOS), (0, self.longest - words.shape[1]), value=EOS)
            mask = torch.ones_like(words, dtype=torch.bool)
        logits, said = self.model(batch["source_tokens"], batch["source_mask"], torch.where(mask, BOS, PAD), mask)
        total = cross_entropy(logits[mask].float(), words[mask], reduction="sum")
        if self.ends == "length":
            total = total + cross_entropy(said.float(), mask.sum(1).clamp(max=self.longest), reduction="sum")
        return total, mask.sum()

    def write(self, source_tokens: Tensor, source_mask: Tensor, *, drafts: int = 1) -> Tensor:
        network = self.model.network
        memory = network.encode(source_tokens, source_mask)
        lengths = likely_lengths(self.model.length(memory.summary), drafts)
        if self.ends == "end":
            lengths = torch.full_like(lengths[:, :1], self.longest)
        masks = up_to(lengths)
        words = partial(read_with, network, memory)
        tokens, score = mask_predict(words, masks.flatten(0, 1), 1, unwritten=BOS, pad=PAD)
        if self.ends == "end":
            return ignore_after_end(tokens, EOS, PAD)
        return self.best(source_tokens, source_mask, tokens.view(masks.shape), score.sum(1).view(lengths.shape) / lengths)

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, drafts: int = 1) -> dict[str, Any]:
        """text: what each text becomes.   inputs: text   drafts: lengths that are tried, the likeliest first"""
        return self.translate(inputs["text"], drafts=drafts)


def read_with(network: Any, memory: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    """Logits of the words at all places of targets, given what was read of their sources."""
    return network.words(network.decode(tokens, mask, memory))


class MaskPrediction(ParallelTransduction):
    """Some words of the target are hidden and told from the others and the source: a conditional masked language model.

    loss = - sum_{t hidden} log p(y_t | x, the words that are not) - log p(T | x); how many are hidden is drawn evenly from 1 to
    all of them, so that it learns every stage of Mask-Predict, which is how it writes (see `mask_predict`).
    model: a `LengthTransformer`.   metrics: bleu after 10 passes.   Ghazvininejad et al. 2019, arXiv:1904.09324.
    """

    ways: Mapping[str, dict[str, int]] = {
        "bleu_1": {"iterations": 1},
        "bleu_4": {"iterations": 4},
        "bleu_4_drafts": {"drafts": 4},
    }

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        words, mask = unframed(batch)
        length = mask.sum(1)
        count = 1 + (torch.rand(len(length), device=length.device) * length).long()
        hidden = random_order(mask) < count[:, None]
        logits, said = self.model(batch["source_tokens"], batch["source_mask"], words.masked_fill(hidden, BOS), mask)
        total = cross_entropy(logits[hidden].float(), words[hidden], reduction="sum")
        return total + cross_entropy(said.float(), length.clamp(max=self.longest), reduction="sum"), count.sum()

    def write(self, source_tokens: Tensor, source_mask: Tensor, *, iterations: int = 10, drafts: int = 1) -> Tensor:
        memory = self.model.network.encode(source_tokens, source_mask)
        lengths = likely_lengths(self.model.length(memory.summary), drafts)
        masks = up_to(lengths)
        words = partial(read_with, self.model.network, memory)
        tokens, score = self.passes(words, masks.flatten(0, 1), iterations)
        return self.best(source_tokens, source_mask, tokens.view(masks.shape), score.sum(1).view(lengths.shape) / lengths)

    def passes(self, words: Reader, mask: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        """The words at all places after so many passes, and the log p of each."""
        return mask_predict(words, mask, iterations, unwritten=BOS, pad=PAD)

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, iterations: int = 10, drafts: int = 1) -> dict[str, Any]:
        """text: what each text becomes.   inputs: text

        iterations: passes over the target.   drafts: lengths that are tried, the likeliest first.
        """
        return self.translate(inputs["text"], iterations=iterations, drafts=drafts)


class Refinement(MaskPrediction):
    """A first pass writes a draft from <bos> alone, and every further one writes all words anew from the draft before.

    loss = - sum_t log p(y_t | x, a row of <bos>) - sum_t log p(y_t | x, draft) - log p(T | x), the draft what the first pass
    says or, half of the time, the target with a quarter of its words replaced by others of the batch: what a pass gets wrong.
    Lee, Mansimov, Cho 2018, arXiv:1802.06901, with weights of its own for the first pass, which reads the source.
    """

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        words, mask = unframed(batch)
        memory = self.model.network.encode(batch["source_tokens"], batch["source_mask"])
        first = read_with(self.model.network, memory, torch.where(mask, BOS, PAD), mask)
        others = words[mask][torch.randint(int(mask.sum()), words.shape, device=words.device)]
        wrong = torch.where(torch.rand(words.shape, device=words.device) < 0.25, others, words)
        draft = torch.where(torch.rand(len(words), 1, device=words.device) < 0.5, wrong, first.argmax(-1)).masked_fill(
            ~mask, PAD
        )
        second = read_with(self.model.network, memory, draft, mask)
        total = sum(cross_entropy(logits[mask].float(), words[mask], reduction="sum") for logits in (first, second))
        said = self.model.length(memory.summary).float()
        return total + cross_entropy(said, mask.sum(1).clamp(max=self.longest), reduction="sum"), 2 * mask.sum()

    def passes(self, words: Reader, mask: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        return refine(words, torch.where(mask, BOS, PAD), mask, iterations, pad=PAD)


@torch.inference_mode()
def rewritten(teacher: Transduction, pairs: list[Pair], beam: int = 1, batch_size: int = 250) -> list[Pair]:
    """The sources of pairs, each once, with what a teacher writes: a plainer corpus than people's, easier to learn.

    Sequence-level knowledge distillation: E_{teacher} log student(y | x), with the teacher's best y for all that it might say.
    beam: of the teacher's search, 1 is greedy.   Kim, Rush 2016, arXiv:1606.07947.
    """
    sources = sorted({source for source, _ in pairs}, key=len)
    found: list[Pair] = []
    for start in range(0, len(sources), batch_size):
        part = sources[start : start + batch_size]
        found += zip(part, teacher.predict({"text": part}, beam=beam)["text"], strict=True)
    return [(source, target) for source, target in found if target]
