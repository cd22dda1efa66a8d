"""News and their headlines: a sentence that says what a text says.   AG News, Zhang, Zhao, LeCun 2015, arXiv:1509.01626"""

import csv
import gzip
import html
import re
import zlib

from thalweg.data.pairs import Corpus, Pair, apart
from thalweg.data.sources import MissingData, find

# who reports, and from where: "AP - ", "SPACE.com - TORONTO, Canada -- ", "LONDON (Reuters) - "
AGENCY = re.compile(r"^(?:(?:AP|AFP|Reuters|\w[\w ]*\.com|[A-Z]{3,}[\w .,']{0,40}?(?:\(\w+\))?) -{1,2} ){1,3}")
SOURCE = re.compile(r"\s*\([^()]*\)\s*$")  # of a headline: "(Reuters)"
SENTENCE = re.compile(r"(?<=[a-z]{3}[.!?])\s+(?=[A-Z\"'])")  # not behind the point of U.S. or of Mr.


def plain(text: str) -> str:
    """A text of the file without what its way through several programs has left in it: signs by their numbers, tags."""
    text = re.sub(r"(?<!&)(#\d+;|quot;|amp;|lt;|gt;)", r"&\1", text.replace("\\", " "))
    return " ".join(re.sub(r"<[^<>]*>", " ", html.unescape(html.unescape(text))).split())


def story(text: str, title: str) -> Pair:
    """What is told, without who tells it, and the headline."""
    return AGENCY.sub("", plain(text)), SOURCE.sub("", plain(title))


def lead(text: str) -> str:
    """The first sentence of a story, which is what a summary has to be better than: lead-1."""
    return SENTENCE.split(text)[0]


def headlines(held_out: int = 500) -> Corpus:
    """Stories of AG News, a few sentences each, and their headlines.

    held_out: stories for validation, and as many for tests.
    The official test file alone, 7,600 rows, of which all are split here: figures are not those of others.
    """
    if (path := find("ag-news/ag_news_csv/test.csv.gz")) is None:
        raise MissingData("ag-news/ag_news_csv/test.csv.gz is neither in THALWEG_DATA nor in the cache: test.csv of "
                          "https://s3.amazonaws.com/fast-ai-nlp/ag_news_csv.tgz, compressed by gzip")  # fmt: skip
    try:
        rows = [*csv.reader(gzip.decompress(path.read_bytes()).decode().splitlines())]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    stories = [story(text, title) for _, title, text in rows]
    long = [pair for pair in stories if min(len(side.split()) for side in pair) > 2]
    pairs = [*dict.fromkeys(long)]
    left_out = {"of fewer than three words": len(stories) - len(long), "repeated": len(long) - len(pairs)}
    return apart(pairs, held_out, {reason: count for reason, count in left_out.items() if count})
