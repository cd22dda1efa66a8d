"""Pairs of sentences of a text, some of whose tokens are hidden: what an encoder of language is pre-trained on.   D2L 14.9"""

import re
import zipfile
from collections.abc import Sequence
from io import BytesIO
from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from thalweg.data.masking import Masking, Sight, choose_units, corrupt, permutation_sight, sight, span_units, units
from thalweg.data.sources import fetch
from thalweg.data.streams import Stream, generator
from thalweg.data.wordpieces import WordPieces
from thalweg.vocabulary import Batch

Objective = Literal["mlm", "nsp", "sop", "unilm", "permutation"]


def _wikitext2() -> list[list[str]]:
    """The lines of articles of Wikipedia, two million words: to learn from, for validation, for tests."""
    url = "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip"
    sha256 = "8e30fd0dc34d2528b4e6b25f9b5250d6bc521dee934962c4b8a50f9e8220574e"
    files = zipfile.ZipFile(BytesIO(fetch("wikitext-2/wikitext-2-v1.zip", url, sha256)))
    texts = [files.read(f"wikitext-2/wiki.{part}.tokens").decode() for part in ("train", "valid", "test")]
    return [text.removesuffix("\n").split("\n") for text in texts]


def wikitext2() -> tuple[list[str], list[str], list[str]]:
    """The paragraphs of WikiText-2, without its headings: to learn from, for validation, for tests.   Merity et al. 2016"""
    parts = [[plain for line in lines if (plain := line.strip()) and not plain.startswith("= ")] for lines in _wikitext2()]
    return parts[0], parts[1], parts[2]


def wikitext2_words() -> tuple[list[str], list[str], list[str]]:
    """All words of WikiText-2, <eos> behind every line, as perplexities of it are published: 2,088,628, 217,646 and 245,569."""
    parts = [[word for line in lines for word in (*line.split(), "<eos>")] for lines in _wikitext2()]
    return parts[0], parts[1], parts[2]


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph of separate words.   D2L 14.9 cuts at the same places"""
    return [one for one in re.split(r"(?<= [.!?]) ", paragraph.replace("<unk>", "[UNK]").replace(" @-@ ", "-")) if len(one) > 2]


def names(words: Sequence[str]) -> list[bool]:
    """Where a word begins a unit, if words in capitals that follow each other, not at the begin of a sentence, are one name."""
    proper = [place > 0 and word[:1].isupper() for place, word in enumerate(words)]
    return [not (place and proper[place] and proper[place - 1]) for place in range(len(words))]


class Pretraining(Stream):
    """[CLS] first [SEP] second [SEP]: sentences that follow each other, of which other tokens are hidden in each pass.

    objective: mlm, the second follows the first;   nsp, every other time it is any sentence instead (Devlin et al. 2018);
    sop, every other time the two change places (Lan et al. 2019, arXiv:1909.11942);   unilm, see `sight`, one kind a batch;
    permutation, nothing is read otherwise, but who foretells a hidden token reads only those whose turn was before.
    masking: what is hidden together, see `thalweg.data.masking`.   share: of the tokens that are hidden.
    context: tokens of a pair at most.
    -> tokens as they are read, original as they were, mask, segment, hidden [batch time], label [batch], 1 where the second
    follows the first; of the last two sees [batch time time].   Every draw is a function of the seed and of the batch's number.
    ValueError if no paragraph has two sentences, or for another objective or masking.
    """

    def __init__(
        self,
        paragraphs: Sequence[str],
        pieces: WordPieces,
        batch_size: int,
        *,
        context: int = 128,
        objective: str = "mlm",
        masking: str = "token",
        share: float = 0.15,
        shuffle: bool = False,
    ):
        for name, value, known in (("objective", objective, Objective), ("masking", masking, Masking)):
            if value not in get_args(known):
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(get_args(known))}")
        self.pieces, self.context, self.objective, self.masking, self.share = pieces, context, objective, masking, share
        texts = [text for paragraph in paragraphs if len(text := sentences(paragraph)) > 1]
        flat = [one for text in texts for one in text]
        room = (context - 3) // 2
        self.tokens, self.starts = list[Tensor](), list[Tensor]()
        for one, encoding in zip(flat, pieces.tokenizer.encode_batch(flat, add_special_tokens=False), strict=True):
            words = one.split() if masking == "entity" else []
            self.tokens.append(torch.tensor(encoding.ids[:room]))
            self.starts.append(_starts(one, words, encoding, masking)[:room])
        ends = torch.tensor([len(text) for text in texts]).cumsum(0)
        self.first = torch.cat([torch.arange(end - len(text), end - 1) for text, end in zip(texts, ends, strict=True)] or
                               [torch.empty(0, dtype=torch.long)])  # fmt: skip
        if not len(self.first):
            raise ValueError("paragraphs: none has two sentences")
        super().__init__(len(self.first), batch_size, shuffle=shuffle)

    def batch(self, number: int) -> Batch:
        random = generator(self.seed, number, 1)
        first = self.first[self.indices(number)]
        second, label = self._second(first, random)
        if self.objective == "sop":
            first, second = torch.where(label == 1, first, second), torch.where(label == 1, second, first)
        batch = self._assembled(first.tolist(), second.tolist())
        free = batch["mask"] & (batch["original"] != self.pieces.cls) & (batch["original"] != self.pieces.sep)
        starts = batch.pop("starts").bool()
        unit = span_units(starts, free, random) if self.masking == "span" else units(starts, free)
        hidden = choose_units(unit, self.share, random)
        tokens = corrupt(batch["original"], hidden, random, mask_token=self.pieces.mask, vocab_size=len(self.pieces),
                         unit=unit if self.masking == "span" else None)  # fmt: skip
        batch |= {"tokens": tokens, "hidden": hidden, "label": label}
        if self.objective == "permutation":
            turn = torch.rand(hidden.shape, generator=random).argsort(1)
            batch |= {"tokens": batch["original"], "sees": permutation_sight(turn.where(hidden, -1), batch["mask"])}
        if self.objective == "unilm":
            kind = get_args(Sight)[int(torch.randint(3, (), generator=random))]
            batch["sees"] = sight(kind, batch["mask"], batch["segment"])
        return batch

    def _second(self, first: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
        """The sentence beside each, and whether it follows."""
        if self.objective not in ("nsp", "sop"):
            return first + 1, torch.ones_like(first)
        label = (torch.rand(len(first), generator=random) < 0.5).long()
        other = torch.randint(len(self.tokens), first.shape, generator=random)
        return (first + 1 if self.objective == "sop" else torch.where(label == 1, first + 1, other)), label

    def _assembled(self, first: list[int], second: list[int]) -> Batch:
        cls, sep, one = torch.tensor([self.pieces.cls]), torch.tensor([self.pieces.sep]), torch.tensor([True])
        tokens, starts, length = [], [], []
        for a, b in zip(first, second, strict=True):
            tokens.append(torch.cat([cls, self.tokens[a], sep, self.tokens[b], sep]))
            starts.append(torch.cat([one, self.starts[a], one, self.starts[b], one]))
            length.append((2 + len(self.tokens[a]), len(tokens[-1])))
        original = pad_sequence(tokens, batch_first=True, padding_value=self.pieces.pad)
        cut, end = torch.tensor(length).T[..., None]
        place = torch.arange(original.shape[1])
        return {"original": original, "starts": pad_sequence(starts, batch_first=True), "mask": place < end,
                "segment": ((place >= cut) & (place < end)).long()}  # fmt: skip


def _starts(sentence: str, words: list[str], encoding, masking: str) -> Tensor:
    """Where a token begins a unit."""
    if masking == "token":
        return torch.ones(len(encoding.ids), dtype=torch.bool)
    if masking != "entity":  # a word, as the tokenizer cuts texts
        number = encoding.word_ids
        return torch.tensor(
            [place == 0 or number[place] != number[place - 1] for place in range(len(number))], dtype=torch.bool
        )
    begins, at = dict[int, bool](), 0
    for word, fresh in zip(words, names(words), strict=True):
        begins[sentence.index(word, at)] = fresh
        at = sentence.index(word, at) + len(word)
    return torch.tensor([begins.get(start, False) for start, _ in encoding.offsets], dtype=torch.bool)
