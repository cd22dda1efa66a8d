"""Writing by hand, as tokens: each letter is a few strokes of the pen, the letters one after the other."""

import random

TRACED = ("left down up", "down up right left", "left down right", "down down right up left", "up left", "right up down",
          "left left up down", "down up right down", "down up", "left down down up")  # fmt: skip
STROKES = dict(zip("abcdefghij", TRACED, strict=True))


def strokes(count: int, shortest: int, longest: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of letters and the strokes that write them: ("a i", "left down up down up")."""
    draw = random.Random(seed)
    said = [[draw.choice([*STROKES]) for _ in range(draw.randint(shortest, longest))] for _ in range(count)]
    return [(" ".join(letters), " ".join(STROKES[letter] for letter in letters)) for letters in said]


def written_by(letters: str) -> list[int]:
    """The place of the letter that each stroke belongs to."""
    return [place for place, letter in enumerate(letters.split()) for _ in STROKES[letter].split()]
