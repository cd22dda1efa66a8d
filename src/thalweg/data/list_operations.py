"""Made sums of lists within lists: what they come to hangs on the whole of a long text and on how it is nested."""

import random
from statistics import median_low

import torch

from thalweg.vocabulary import Batch

OPERATORS = ("[MAX", "[MIN", "[MED", "[SM")
WORDS = ("<pad>", *"0123456789", *OPERATORS, "]")


def value(operator: str, numbers: list[int]) -> int:
    """The largest, the smallest, the (lower) median, or the sum modulo 10."""
    known = {"[MAX": max(numbers), "[MIN": min(numbers), "[MED": median_low(numbers), "[SM": sum(numbers) % 10}
    return known[operator]


def expression(draw: random.Random, depth: int, most: int) -> tuple[list[str], int]:
    """Words such as [MAX 2 [MIN 7 4 ] 1 ], lists at most `depth` deep of 2 to `most` members, and the digit it comes to."""
    operator, words, numbers = draw.choice(OPERATORS), list[str](), list[int]()
    for _ in range(draw.randint(2, most)):
        if depth > 1 and draw.random() < 0.3:
            inner, number = expression(draw, depth - 1, most)
        else:
            number = draw.randrange(10)
            inner = [str(number)]
        words += inner
        numbers.append(number)
    return [operator, *words, "]"], value(operator, numbers)


def list_operations(count: int, longest: int, seed: int, depth: int = 3, most: int = 6) -> Batch:
    """So many expressions of at most `longest` words, no shorter than a quarter of that, and what they come to.

    tokens [count longest]: places in WORDS, 0 is padding at the end; mask [count longest]; label [count], 0 to 9.
    ValueError for a longest below 8.   ListOps: Nangia, Bowman 2018, arXiv:1804.06028; Tay et al. 2020, arXiv:2011.04006.
    """
    if longest < 8:
        raise ValueError(f"longest={longest}: expected at least 8")
    draw, number = random.Random(seed), {word: place for place, word in enumerate(WORDS)}
    tokens, label = torch.zeros(count, longest, dtype=torch.long), torch.zeros(count, dtype=torch.long)
    made = 0
    while made < count:
        words, digit = expression(draw, depth, most)
        if longest <= 4 * len(words) <= 4 * longest:
            tokens[made, : len(words)] = torch.tensor([number[word] for word in words])
            label[made] = digit
            made += 1
    return {"tokens": tokens, "mask": tokens > 0, "label": label}
