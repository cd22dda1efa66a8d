"""A language in which every second word has two words in the other: pairs whose right translation and fertilities are known."""

import random

WORDS = 8


def phrases(count: int, seed: int, longest: int = 4) -> list[tuple[str, str]]:
    """Pairs such as ("s2 s1 s6", "t2 t1 u1 t6")."""
    draw = random.Random(seed)
    chosen = [[draw.randrange(WORDS) for _ in range(draw.randint(1, longest))] for _ in range(count)]
    return [(" ".join(f"s{word}" for word in words), translated(words)) for words in chosen]


def translated(words: list[int]) -> str:
    return " ".join(f"t{word} u{word}" if word % 2 else f"t{word}" for word in words)
