"""Encoders of language to start from: public weights, or what a run of ours has learned."""

from pathlib import Path
from typing import Any

from thalweg import public
from thalweg.adaptation.adopt import tokenizer_of
from thalweg.build import build, load
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.layers.attention import head_count
from thalweg.models.language.bert import BERT, bert


def pretrained_encoder(source: str) -> tuple[BERT, str]:
    """The encoder of a public folder or hub id, or of a run or model folder of ours, and the text of its tokenizer.

    ValueError if it holds no such encoder; CorruptFile if it is damaged.
    """
    folder = next((path for path in (Path(source, "model"), Path(source)) if (path / "config.json").exists()), None)
    if folder is None or '"history"' not in (folder / "config.json").read_text(encoding="utf8"):
        return public.pretrained(bert, source), tokenizer_of(public.fetch(source))  # type: ignore[return-value]
    task: Any = load(folder)
    encoder = next((part for part in task.modules() if isinstance(part, BERT)), None)
    pieces = getattr(task, "pieces", None) or getattr(getattr(task, "reader", None), "pieces", None)
    if encoder is None or not isinstance(pieces, WordPieces):
        raise ValueError(f"pretrained={source!r}: {type(task).__name__} has no encoder that reads pieces of words")
    return encoder.requires_grad_(True), pieces.text


def small_encoder(texts: list[str], *, vocab_size: int, embed_dim: int, num_layers: int, context: int) -> tuple[BERT, str]:
    """An encoder that has learned nothing, and a tokenizer of the pieces that the texts are made of."""
    tokenizer = learn_wordpieces(texts, vocab_size)
    return build(BERT, vocab_size=len(WordPieces(tokenizer)), context=context, embed_dim=embed_dim, num_layers=num_layers,
                 num_heads=head_count(embed_dim, 32)), tokenizer  # fmt: skip
