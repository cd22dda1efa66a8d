"""Texts as tokens: an alphabet of characters or a list of words, and windows of a long text."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple
from unicodedata import category, normalize

import torch
from jaxtyping import Int
from torch import Tensor

from thalweg.data.streams import Augment, Stream, generator
from thalweg.vocabulary import Batch

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters


class Characters:
    """The smallest tokeniser: a character is a token, its number its place in the alphabet.   D2L 8.2, LBDL 3.2

    ValueError if the alphabet is empty or holds a character twice.
    """

    def __init__(self, alphabet: str):
        if not alphabet or len(set(alphabet)) != len(alphabet):
            raise ValueError(f"alphabet={alphabet!r}: expected different characters, at least one")
        self.alphabet = alphabet
        self.number = {character: number for number, character in enumerate(alphabet)}

    def __len__(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> Int[Tensor, " time"]:
        """The token of each character; ValueError, naming them, if characters are not in the alphabet."""
        if unknown := "".join(sorted(set(text) - set(self.number))):
            raise ValueError(f"text: the characters {unknown!r} are not in the alphabet {self.alphabet!r}")
        return torch.tensor([self.number[character] for character in text], dtype=torch.long)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens."""
        return "".join(self.pieces(tokens))

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """The character of each token."""
        return [self.alphabet[token] for token in tokens]


class WholeWords:
    """A word is a token, what stands between spaces; another than those known is <unk>.   D2L 8.2

    words: those that are known, in the order of their tokens, with spaces between.
    ValueError if a word is there twice, or <unk> not at all.
    """

    def __init__(self, words: str):
        self.words = words.split()
        self.number = {word: number for number, word in enumerate(self.words)}
        if len(self.number) != len(self.words) or "<unk>" not in self.number:
            raise ValueError(f"words: expected different words and <unk> among them; there are {len(self.words)}, "
                             f"{len(self.number)} of them different")  # fmt: skip

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> Int[Tensor, " time"]:
        """The token of each word."""
        return torch.tensor([self.number.get(word, self.number["<unk>"]) for word in text.split()], dtype=torch.long)

    def decode(self, tokens: Iterable[int]) -> str:
        """The words of tokens, with spaces between."""
        return "".join(self.pieces(tokens))[:-1]

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """The word of each token, and the space behind it."""
        return [self.words[token] + " " for token in tokens]


class Windows(Stream):
    """Windows of context + 1 tokens of a long text, whose first `context` are read and whose last `context` are predicted.

    They lie `stride` apart, side by side if None. Every token but the first is counted (mask) exactly once: in the first
    window all, in the others the last `stride`, which are predicted from at least context - stride others. Side by side,
    the first tokens of a window have little to go by, so that overlapping windows measure a lower loss.
    shuffle: each pass starts at another random place below `stride` and takes the windows in random order, all whole.
    tokens: [time] -> batches of tokens, mask [batch context+1].   D2L 8.3
    ValueError if the stride is not in [1, context] or the text shorter than context + 1, with shuffle context + stride.
    """

    def __init__(self, tokens: Tensor, context: int, batch_size: int, *, stride: int | None = None, shuffle: bool = False,
                 augment: Sequence[Augment] = ()):  # fmt: skip
        self.tokens, self.context, self.stride = tokens, context, stride or context
        if not 1 <= self.stride <= context:
            raise ValueError(f"stride={stride}: expected 1 to context={context}")
        shortest = context + (self.stride if shuffle else 1)
        if len(tokens) < shortest:
            raise ValueError(f"tokens: a text of {len(tokens)}, expected at least {shortest} for context={context}")
        size = (len(tokens) - context) // self.stride if shuffle else -(-(len(tokens) - 1 - context) // self.stride) + 1
        super().__init__(size, batch_size, shuffle=shuffle, augment=augment)

    def batch(self, number: int) -> Batch:
        offset = 0
        if self.shuffle:
            offset = int(torch.randint(self.stride, (), generator=generator(self.seed, number // len(self), 2)))
        window = self.indices(number)
        place = offset + window[:, None] * self.stride + torch.arange(self.context + 1)
        mask = place < len(self.tokens)
        mask[window > 0, : self.context + 1 - self.stride] = False
        return self.augmented({"tokens": self.tokens[place.clamp(max=len(self.tokens) - 1)], "mask": mask}, number)


class Partition(Stream):
    """A long text cut into as many pieces as a batch has rows; a batch goes on where the one before ended.

    So a recurrent network can keep its state from batch to batch. With shuffle each pass starts at another random place below
    `context`; what the rows do not fill is left out.
    tokens: [time] -> batches of tokens [batch_size context+1], whose last are the first of the next batch, and
    begins [batch_size], True in the first batch of a pass.   D2L 8.3: sequential partitioning
    ValueError if the text is shorter than batch_size context + context.
    """

    def __init__(self, tokens: Tensor, context: int, batch_size: int, *, shuffle: bool = False):
        shortest = context * (1 + batch_size)
        if context < 1 or len(tokens) < shortest:
            raise ValueError(f"tokens: a text of {len(tokens)}, expected at least {shortest} for context={context} and "
                             f"batch_size={batch_size}")  # fmt: skip
        self.tokens, self.context = tokens, context
        room = len(tokens) - 1 - (context - 1 if shuffle else 0)
        super().__init__(room // (batch_size * context) * batch_size, batch_size, shuffle=shuffle)

    def batch(self, number: int) -> Batch:
        epoch, position = divmod(number, len(self))
        start = position * self.context
        if self.shuffle:
            start += int(torch.randint(self.context, (), generator=generator(self.seed, epoch, 2)))
        rows = torch.arange(self.batch_size)[:, None] * (len(self) * self.context)
        tokens = self.tokens[start + rows + torch.arange(self.context + 1)]
        return {"tokens": tokens, "begins": torch.full((self.batch_size,), position == 0)}


class Vocabulary(NamedTuple):
    """The words that are known, the most frequent first, how often each occurs, and how many words the text has in all."""

    words: list[str]
    counts: list[int]
    total: int

    def __str__(self) -> str:
        known = sum(self.counts)
        return f"{len(self.words):,} words, {known:,} of {self.total:,} in the text ({known / self.total:.2%})"

    def encode(self, words: Iterable[str]) -> Int[Tensor, " time"]:
        """The numbers of the words that are known; others are left out."""
        number = {word: number for number, word in enumerate(self.words)}
        return torch.tensor([number[word] for word in words if word in number], dtype=torch.int32)


def vocabulary(words: Sequence[str], least: int = 1) -> Vocabulary:
    """The words that occur at least so often, the most frequent first.   D2L 8.2, 9.5

    ValueError where fewer than two words are left.
    """
    counted = [(word, count) for word, count in Counter(words).most_common() if count >= least]
    if len(counted) < 2:
        raise ValueError(f"least={least}: {len(counted)} words of a text of {len(words):,} occur so often, expected two")
    return Vocabulary([word for word, _ in counted], [count for _, count in counted], len(words))


def segment(text: str, by: str = "words") -> list[str]:
    """The words of a text, in lower case and without punctuation.   文本分词

    by: "words", a run of letters and digits is one; "characters", and each Chinese character is one; "jieba", Chinese is cut
    by a dictionary, `pip install 'thalweg[chinese]'`.   ValueError for another; ImportError without jieba.
    """
    if by not in ("words", "characters", "jieba"):
        raise ValueError(f"by={by!r}: expected words, characters or jieba")
    if by == "jieba":
        try:
            import jieba
        except ImportError as error:
            raise ImportError("by=jieba: pip install 'thalweg[chinese]'") from error
        return [word for word in jieba.cut(text.lower()) if re.match(r"\w", word)]
    letters, one = rf"(?:[^\W{HAN}][{_marks()}]*)+", rf"(?:\w[{_marks()}]*)+"
    return re.findall(rf"[{HAN}]|{letters}(?:'{letters})*" if by == "characters" else f"{one}(?:'{one})*",
                      normalize("NFC", text.lower().replace("’", "'")))  # fmt: skip


@cache
def _marks() -> str:
    """What is no letter but a part of one: accents, vowels of Indian and Thai letters, joiners."""
    return "\u200c\u200d" + "".join(chr(code) for code in range(0x300, 0x1F000) if category(chr(code)).startswith("M"))
