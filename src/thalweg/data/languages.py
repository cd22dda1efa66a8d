"""Sentences of several languages, for one encoder that is not told which is which; who is in a photograph.   LEE BERT"""

import re
from collections.abc import Sequence
from typing import Literal

import torch

from thalweg.data.judged import Judged, JudgedTexts
from thalweg.data.masking import choose_units, corrupt, units
from thalweg.data.pairs import multi30k, tatoeba_fra_eng
from thalweg.data.streams import ByLength, generator, padded
from thalweg.data.wordpieces import WordPieces
from thalweg.vocabulary import Batch

Meaning = tuple[str, ...]  # what one sentence says, in each language

LANGUAGES = {"multi30k": ("en", "fr", "de"), "tatoeba": ("en", "fr")}

PEOPLE = ("neither", "women", "men")
WOMEN = re.compile(r"\b(woman|women|girl|girls|lady|ladies|female|females)\b", re.IGNORECASE)
MEN = re.compile(r"\b(man|men|boy|boys|guy|guys|gentleman|gentlemen|male|males)\b", re.IGNORECASE)


def meanings(corpus: Literal["multi30k", "tatoeba"]) -> tuple[list[Meaning], list[Meaning], list[Meaning]]:
    """Sentences that say the same in each language of LANGUAGES: to learn from, for validation, for tests.

    multi30k: descriptions of photographs in English, French and German; tatoeba: short English and French sentences.
    """
    if corpus == "tatoeba":
        pairs = tatoeba_fra_eng()
        return [*pairs.train], [*pairs.valid], [*pairs.test]
    french, german = (multi30k("en", other, words=False) for other in ("fr", "de"))
    train, valid, test = (
        [(*one, other[1]) for one, other in zip(getattr(french, part), getattr(german, part), strict=True)]
        for part in ("train", "valid", "test")
    )
    return train, valid, test


def people(english: str) -> int | None:
    """Of whom a description speaks: the place in PEOPLE; None where it speaks of women and of men."""
    women, men = bool(WOMEN.search(english)), bool(MEN.search(english))
    return None if women and men else 1 * women + 2 * men


def photographed() -> tuple[JudgedTexts, tuple[list[int], list[int]]]:
    """Descriptions of photographs and of whom they speak, told by the words of the English one: see `people`.

    To learn from there are English ones alone; those of validation and tests are in English, French and German, each with the
    label of its English partner. The numbers of their languages come along.   Elliott et al. 2016, arXiv:1605.00459
    """
    train, *measured = meanings("multi30k")
    told = [Judged(one[0], None, who) for one in train if (who := people(one[0])) is not None]
    parts, numbers = list[list[Judged]](), list[list[int]]()
    for part in measured:
        known = [(number, sentence, who) for one in part if (who := people(one[0])) is not None
                 for number, sentence in enumerate(one)]  # fmt: skip
        parts.append([Judged(sentence, None, who) for _, sentence, who in known])
        numbers.append([number for number, _, _ in known])
    return JudgedTexts(told, parts[0], parts[1], PEOPLE), (numbers[0], numbers[1])


class Multilingual(ByLength):
    """[CLS] sentence [SEP] in several languages, of which other tokens are hidden in each pass.

    meanings: sentences that say the same, one a language.   together: an example is a meaning, and its sentences are
    neighbours in a batch, in the order of the languages; else an example is a sentence, and nothing says what is its
    translation.   context: tokens of a sentence at most.   share: of the tokens that are hidden.
    -> tokens as they are read, original as they were, mask, segment, hidden [batch time]; language [batch], its number, by
    which is measured and nothing is read.   Every draw is a function of the seed and of the batch's number.
    """

    def __init__(
        self,
        meanings: Sequence[Meaning],
        pieces: WordPieces,
        batch_size: int,
        *,
        context: int = 64,
        share: float = 0.15,
        together: bool = False,
        shuffle: bool = False,
    ):
        self.pieces, self.share = pieces, share
        flat = [sentence for one in meanings for sentence in one]
        self.sentences = [torch.tensor(encoding.ids) for encoding in pieces.encode(flat, longest=context)]
        self.languages = len(meanings[0])
        self.each = self.languages if together else 1  # sentences of an example
        length = torch.tensor([len(one) for one in self.sentences]).view(-1, self.each).sum(1)
        super().__init__(length, batch_size, shuffle=shuffle)

    def batch(self, number: int) -> Batch:
        random = generator(self.seed, number, 1)
        index = (self.indices(number)[:, None] * self.each + torch.arange(self.each)).flatten()
        chosen = [self.sentences[place] for place in index.tolist()]
        original, mask = padded({"tokens": chosen}, self.pieces.pad).values()
        free = mask & (original != self.pieces.cls) & (original != self.pieces.sep)
        hidden = choose_units(units(torch.ones_like(free), free), self.share, random)
        tokens = corrupt(original, hidden, random, mask_token=self.pieces.mask, vocab_size=len(self.pieces))
        return {"tokens": tokens, "original": original, "mask": mask, "segment": torch.zeros_like(original),
                "hidden": hidden, "language": index % self.languages}  # fmt: skip
