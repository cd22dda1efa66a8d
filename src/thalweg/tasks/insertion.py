"""Translation by putting words in between: in any order, many at a time, with or without taking some out again.   LEE NAT"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torchmetrics.text import BLEUScore

from thalweg.data.pairs import BOS, EOS, PAD
from thalweg.decoding.parallel import edit, insert
from thalweg.layers.rows import compact, interleaved
from thalweg.metrics import MeanLoss
from thalweg.tasks.non_autoregressive import ParallelTransduction, plain, random_order, unframed
from thalweg.vocabulary import Batch


def some(mask: Tensor) -> Tensor:
    """Which words of each target are there already: so many of them as is drawn evenly from none to all, at random."""
    length = mask.sum(1)
    count = (torch.rand(len(length), device=length.device) * (length + 1)).long()
    return random_order(mask) < count[:, None]


def missing_words(logits: Tensor, words: Tensor, mask: Tensor, kept: Tensor, temperature: float = 0.5) -> tuple[Tensor, Tensor]:
    """What every gap of a partial target costs, and how many gaps there are.

    gap with words y_i ... y_j: - sum_k w_k log p(y_k), w = softmax_k(-|k - (i + j) / 2| / temperature), so that the middle one
    comes first and every pass halves the gap;   empty gap: - log p(<eos>).
    logits: [batch gap vocab];   words, mask, kept: [batch time] of the whole target, and which of it stand there.
    """
    gap = kept.cumsum(1)  # that a word which is not there belongs into
    absent = mask & ~kept
    place = torch.arange(words.shape[1], device=words.device).expand_as(words)
    shape, gaps = (len(words), logits.shape[1]), torch.arange(logits.shape[1], device=words.device)
    group = gap.masked_fill(~absent, 0)
    first = place.new_full(shape, words.shape[1]).scatter_reduce(1, group, place.masked_fill(~absent, words.shape[1]), "amin")
    last = place.new_full(shape, -1).scatter_reduce(1, group, place.masked_fill(~absent, -1), "amax")
    off = (place - (first + last).gather(1, group) / 2).abs()
    weight = (-off / temperature).exp() * absent
    weight = weight / weight.new_zeros(shape).scatter_add(1, group, weight).gather(1, group).clamp(min=1e-30)
    said = logits.float().log_softmax(-1)
    rows = torch.arange(len(words), device=words.device)[:, None]
    filled = (weight * said[rows, group, words]).sum()
    real = gaps <= kept.sum(1, keepdim=True)
    return -filled - said[..., EOS][real & (last < 0)].sum(), real.sum()


class Insertion(ParallelTransduction):
    """Sees some words of the target, in their order, and learns which belong into the gaps: see `missing_words`.

    model: an `InsertionTransformer`.   metrics: passes, of which log2(N + 1) rounded up write N words in the balanced order.
    Stern, Chan, Kiros, Uszkoreit 2019, arXiv:1902.03249.
    """

    def __init__(self, model: nn.Module, source_words: str, target_words: str, longest: int, teacher: nn.Module | None = None):
        super().__init__(model, source_words, target_words, longest, teacher)
        self.metrics.add_metrics({"passes": MeanLoss()})

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        words, mask = unframed(batch)
        kept = some(mask)
        seen = compact(words, kept, PAD)
        logits = self.model(batch["source_tokens"], batch["source_mask"], seen, seen != PAD)
        return missing_words(logits, words, mask, kept)

    def write(self, source_tokens: Tensor, source_mask: Tensor, *, iterations: int = 10) -> Tensor:
        return self.inserted(source_tokens, source_mask, iterations)[0]

    def inserted(self, source_tokens: Tensor, source_mask: Tensor, iterations: int = 10) -> tuple[Tensor, Tensor]:
        """The targets, and how many passes each took."""
        slots = partial(self.model.missing, memory=self.model.network.encode(source_tokens, source_mask))
        return insert(
            slots, len(source_tokens), iterations, longest=self.longest, eos=EOS, pad=PAD, device=source_tokens.device
        )

    def evaluate(self, batch: Batch) -> None:
        super().evaluate(batch)
        self.metrics["passes"].update(self.inserted(batch["source_tokens"], batch["source_mask"])[1].float())

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, iterations: int = 10) -> dict[str, Any]:
        """text: what each text becomes.   inputs: text   iterations: passes at most"""
        return self.translate(inputs["text"], iterations=iterations)


class Editing(ParallelTransduction):
    """Learns to take wrong words out of a draft and to put the missing ones in: from nothing it writes, a draft it mends.

    Missing: of some words of the target, how many others come into each gap, - log p(count), and which, - log p(word).
    Wrong: the same target, its gaps filled by what the model itself says, and other words strewn in: - log p(wrong), whatever
    is not the target's word at its place. So it sees its own mistakes as well as others.
    model: a `LevenshteinTransformer`.   Gu, Wang, Zhao 2019, arXiv:1905.11006, whose drafts are edited by the least number of
    steps, found by dynamic programming; here they are known, since the drafts are made from the target.
    """

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        words, mask = unframed(batch)
        memory = self.model.network.encode(batch["source_tokens"], batch["source_mask"])
        kept = some(mask)
        seen = compact(words, kept, PAD)
        counts = self.model.missing(seen, seen != PAD, memory)
        absent = mask & ~kept
        gap = kept.cumsum(1).masked_fill(~absent, 0)
        missing = torch.zeros(counts.shape[:2], dtype=torch.long, device=words.device).scatter_add(1, gap, absent.long())
        gaps = torch.arange(counts.shape[1], device=words.device) <= kept.sum(1, keepdim=True)
        total = cross_entropy(counts[gaps].float(), missing[gaps].clamp(max=counts.shape[2] - 1), reduction="sum")
        said = self.model.words(words.masked_fill(absent, BOS), mask, memory)
        total = total + cross_entropy(said[absent].float(), words[absent], reduction="sum")
        draft, wrong = self.spoilt(torch.where(absent, said.argmax(-1), words), words, mask)
        goes = self.model.wrong(draft, draft != PAD, memory)[draft != PAD]
        total = total + binary_cross_entropy_with_logits(goes.float(), wrong[draft != PAD].float(), reduction="sum")
        return total, gaps.sum() + absent.sum() + len(goes)

    def spoilt(self, written: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What was written with words of the batch strewn in, into every fifth gap, and which of all these are wrong."""
        strewn = words[mask][torch.randint(int(mask.sum()), (len(words), words.shape[1] + 1), device=words.device)]
        inside = torch.arange(strewn.shape[1], device=words.device) <= mask.sum(1, keepdim=True)
        strewn = strewn.masked_fill((torch.rand(strewn.shape, device=words.device) > 0.2) | ~inside, PAD)
        all_words = interleaved(strewn, written.masked_fill(~mask, PAD))
        wrong = interleaved(torch.ones_like(strewn), (written != words).long())
        return compact(all_words, all_words != PAD, PAD), compact(wrong, all_words != PAD, 0)

    def write(self, source_tokens: Tensor, source_mask: Tensor, *, iterations: int = 10) -> Tensor:
        return self.edited(source_tokens, source_mask, source_tokens.new_empty(len(source_tokens), 0), iterations)

    def edited(self, source_tokens: Tensor, source_mask: Tensor, draft: Tensor, iterations: int = 10) -> Tensor:
        """A draft, [batch time] with padding behind, after its words were taken out and others put in."""
        memory = self.model.network.encode(source_tokens, source_mask)
        wrong, missing, words = (
            partial(part, memory=memory) for part in (self.model.wrong, self.model.missing, self.model.words)
        )
        return edit(wrong, missing, words, draft, iterations, longest=self.longest, unwritten=BOS, pad=PAD)[0]

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, iterations: int = 10, draft: str = "") -> dict[str, Any]:
        """text: what each text becomes.   inputs: text   iterations: rounds at most   draft: a translation to start from"""
        device = next(self.model.parameters()).device
        sources = pad_sequence([self.source.encode(text) for text in inputs["text"]], batch_first=True).to(device)
        start = self.target.encode(draft)[:-1].to(device).expand(len(sources), -1)
        written = self.edited(sources, sources != PAD, start, iterations)
        return {"text": [self.target.decode(row) for row in written.tolist()]}


class JointInsertion(ParallelTransduction):
    """Sees some words of the source and some of the target, and learns which belong into the gaps of both.

    loss = the sum of `missing_words` over both sides. A third of the pairs show all of the source, so that it translates, a
    third all of the target, so that it translates back, and a third a part of either, so that it also writes both.
    model: a `Kermit`.   metrics: bleu, and bleu_back of the sources from the targets.   Chan et al. 2019, arXiv:1906.01604.
    """

    def __init__(self, model: nn.Module, source_words: str, target_words: str, longest: int, teacher: nn.Module | None = None):
        super().__init__(model, source_words, target_words, longest, teacher)
        self.metrics.add_metrics({"bleu_back": BLEUScore()})

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        whole, parts = (plain(batch["source_tokens"]), unframed(batch)), []
        shown = torch.randint(3, (len(batch["source_tokens"]), 1), device=batch["source_tokens"].device)
        for side, (words, mask) in enumerate(whole):
            kept = torch.where(shown == side, mask, some(mask))
            parts.append((compact(words, kept, PAD), kept))
        seen = [part for tokens, _ in parts for part in (tokens, tokens != PAD)]
        costs = [missing_words(logits, *sentence, kept)
                 for logits, sentence, (_, kept) in zip(self.model(*seen), whole, parts, strict=True)]  # fmt: skip
        return costs[0][0] + costs[1][0], costs[0][1] + costs[1][1]

    def write(self, source_tokens: Tensor, source_mask: Tensor, *, iterations: int = 10) -> Tensor:
        return self.other(plain(source_tokens), 1, iterations)

    def other(self, given: tuple[Tensor, Tensor], side: int, iterations: int = 10) -> Tensor:
        """The side of a pair (0: source, 1: target), from the whole of the other."""

        def slots(tokens: Tensor, mask: Tensor) -> Tensor:
            pair = (*given, tokens, mask) if side else (tokens, mask, *given)
            return self.model(*pair)[side]

        rows, device = len(given[0]), given[0].device
        return insert(slots, rows, iterations, longest=self.longest, eos=EOS, pad=PAD, device=device)[0]

    def evaluate(self, batch: Batch) -> None:
        super().evaluate(batch)
        back, truth = self.other(unframed(batch), 0), batch["source_tokens"]
        written, references = ([self.source.decode(row) for row in side.tolist()] for side in (back, truth))
        self.metrics["bleu_back"].update(written, [[reference] for reference in references])

    @torch.inference_mode()
    def predict(self, inputs: dict[str, list[str]], *, iterations: int = 10, back: bool = False) -> dict[str, Any]:
        """text: what each text becomes.   inputs: text

        iterations: passes at most.   back: the texts are in the target's language.
        """
        if not back:
            return self.translate(inputs["text"], iterations=iterations)
        device = next(self.model.parameters()).device
        texts = pad_sequence([self.target.encode(text) for text in inputs["text"]], batch_first=True).to(device)
        return {"text": [self.source.decode(row) for row in self.other(plain(texts), 0, iterations).tolist()]}
