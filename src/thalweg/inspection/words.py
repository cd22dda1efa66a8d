"""How often words occur: few very often, most hardly ever, as Zipf found.   D2L 8.2, 8.3"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy

from thalweg import figures
from thalweg.data.own_text import read_text
from thalweg.data.text import segment

COVERED = (0.9, 0.95, 0.99)


def frequencies(words: Sequence[str], n: int = 1) -> list[int]:
    """How often each n-gram of a text occurs, the most frequent first."""
    return sorted(Counter(zip(*(words[start:] for start in range(n)), strict=False)).values(), reverse=True)


def zipf_slope(counts: Sequence[int]) -> float:
    """The slope of log count over log rank: -1 is Zipf's law, that the r-th word occurs 1 / r as often as the first.

    By least squares over ranks at equal factors from each other, so that the many rare words do not decide it, as far as a
    word occurs twice.   counts: the largest first.   ValueError where there are fewer than two such.
    """
    last = sum(count >= 2 for count in counts)
    if last < 2:
        raise ValueError(f"counts: {last} of them are 2 or more, expected two for a slope")
    ranks = numpy.unique(numpy.geomspace(1, last, 100).round().astype(int))
    return float(numpy.polyfit(numpy.log(ranks), numpy.log(numpy.asarray(counts)[ranks - 1]), 1)[0])


def draw_words(path: Path, out: Path, by: str = "words") -> str:
    """Draws how often words, pairs and triples of a text occur over their ranks; the slopes, and what a vocabulary covers.

    path, by: as `read_text` and `segment` take them.
    """
    words = segment(read_text(path), by)
    if len(words) < 10:
        raise ValueError(f"{path}: holds {len(words)} words, expected 10 at least")
    series, lines = {}, [f"{len(words):,} words"]
    for n in (1, 2, 3):
        counts = frequencies(words, n)
        slope = f"slope {zipf_slope(counts):.2f}" if counts[1:2] and counts[1] > 1 else "none of them twice"
        name = f"{('words', 'pairs', 'triples')[n - 1]}, {slope}"
        places = numpy.unique(numpy.geomspace(1, len(counts), 300).round().astype(int))
        series[name] = [(float(rank), float(counts[rank - 1])) for rank in places]
        once = sum(count == 1 for count in counts) / len(counts)
        lines.append(f"{len(counts):,} different {name}, {once:.0%} of them occur once")
        if n == 1:
            sums = numpy.cumsum(counts)
            needed = [int(numpy.searchsorted(sums, share * len(words))) + 1 for share in COVERED]
            lines += [f"{share:.0%} of the text are its {most:,} most frequent words"
                      for share, most in zip(COVERED, needed, strict=True)]  # fmt: skip
    figures.curves(series, xlabel="rank", ylabel="times", log=True, xlog=True).savefig(out)
    return "\n".join(lines)
