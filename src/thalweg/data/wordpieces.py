"""WordPiece: a word is one token, or a stem and pieces marked by ## that go on with it.   D2L 14.6, 14.8"""

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from thalweg.data.streams import padded
from thalweg.vocabulary import Batch

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def learn_wordpieces(texts: Iterable[str], vocab_size: int = 8000, lowercase: bool = True) -> str:
    """The pieces that texts are made of, by merges as in byte pair encoding; the text of a tokenizer.json.

    A text is [CLS] text [SEP], a pair of texts [CLS] first [SEP] second [SEP].
    ValueError if vocab_size is not above the five special tokens.   Schuster, Nakajima 2012, "Japanese and Korean voice search"
    """
    if vocab_size <= len(SPECIAL):
        raise ValueError(f"vocab_size={vocab_size}: expected more than {len(SPECIAL)}")
    normalizer, apart = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    learned, texts = Tokenizer(models.WordPiece(unk_token="[UNK]")), [*texts]
    learned.normalizer, learned.pre_tokenizer = normalizer, apart
    # pieces of equal count are merged in the order of their numbers: letters get theirs here, by the trainer at random
    words = {word for text in texts for word in normalizer.normalize_str(text).split()}
    inner = {letter for word in words for part, _ in apart.pre_tokenize_str(word) for letter in part[1:]}
    first = [*SPECIAL, *(f"##{letter}" for letter in sorted(inner))]
    learned.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
    )
    tokenizer = Tokenizer(models.WordPiece(learned.get_vocab(), unk_token="[UNK]"))
    tokenizer.add_special_tokens([*SPECIAL])
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, apart, decoders.WordPiece()
    marks = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    return tokenizer.to_str()


class WordPieces:
    """A tokeniser of word pieces: texts, or pairs of texts, in; tokens, mask and segment out.

    text: of a tokenizer.json, by `learn_wordpieces` or another program.   marks: whether "[MASK]" in a text is that token.
    ValueError if it is none, or lacks one of the special tokens.
    """

    def __init__(self, text: str, marks: bool = False):
        try:
            self.tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # that is what the library raises
            raise ValueError(f"text: expected that of a tokenizer.json, {error}") from error
        vocabulary = self.tokenizer.get_vocab()
        if missing := [name for name in SPECIAL if name not in vocabulary]:
            raise ValueError(f"text: its tokenizer lacks {', '.join(missing)}")
        self.pad, self.unk, self.cls, self.sep, self.mask = (vocabulary[name] for name in SPECIAL)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.text = self.tokenizer.to_str()
        self.tokenizer.encode_special_tokens = not marks

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, first: Sequence[str], second: Sequence[str] | None = None, longest: int | None = None) -> list[Encoding]:
        """Each text, or pair, as tokens; of more than `longest` those at the end, of the longer of a pair, are left out."""
        pairs: Sequence = first if second is None else list(zip(first, second, strict=True))
        if longest is not None:
            self.tokenizer.enable_truncation(longest)
        found = self.tokenizer.encode_batch_fast(pairs)
        self.tokenizer.no_truncation()
        return found

    def batch(self, first: Sequence[str], second: Sequence[str] | None = None, longest: int | None = None) -> Batch:
        """tokens, mask, segment [batch time] of texts or pairs, padded to the longest."""
        return self.padded(self.encode(first, second, longest))

    def padded(self, encodings: Sequence[Encoding]) -> Batch:
        return padded({"tokens": [torch.tensor(one.ids) for one in encodings],
                       "segment": [torch.tensor(one.type_ids) for one in encodings]}, self.pad)  # fmt: skip

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without special ones."""
        return self.tokenizer.decode(list(tokens))

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        return [self.tokenizer.id_to_token(token) or "" for token in tokens]

    def goes_on(self) -> Tensor:
        """Which tokens go on with the word of the token before.   bool [vocab]"""
        return torch.tensor([piece.startswith("##") for piece in self.pieces(range(len(self)))])
