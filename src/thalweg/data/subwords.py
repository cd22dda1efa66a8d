"""Sub-words: a frequent word is one token, a rare one a few, and there is no text that cannot be said.   LBDL 3.2, D2L 14.6"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from thalweg.data.pairs import BOS, EOS, PAD, RESERVED, UNK


def learn_subwords(texts: Iterable[str], vocab_size: int = 6000, marks: Sequence[str] = ()) -> str:
    """Byte pair encoding: again and again, the most frequent pair of neighbouring tokens becomes a token.

    The first tokens are those reserved, the marks and the 256 bytes, so that any text can be written; no token reaches over
    the end of a word. The text of a tokenizer.json, as `Subwords` takes it.   marks: tokens of which no text is made.
    ValueError if vocab_size is not above the 260 tokens that there are without merges.
    Gage 1994; Sennrich, Haddow, Birch 2015, arXiv:1508.07909; bytes: Radford et al. 2019.
    """
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(RESERVED) + len(alphabet):
        raise ValueError(f"vocab_size={vocab_size}: expected more than {len(RESERVED) + len(alphabet)}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = bytewise, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[*RESERVED, *marks], initial_alphabet=alphabet,
                                  show_progress=False)  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def learn_unigrams(texts: Iterable[str], vocab_size: int = 6000) -> str:
    """Of very many pieces those are kept of which the texts are most probable, and a word is cut in the most probable way.

    The first tokens are those reserved; a blank is the sign ▁, and what was never seen is <unk>. The text of a tokenizer.json,
    as `Subwords` takes it.   Kudo 2018, arXiv:1804.10959.
    """
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=vocab_size, special_tokens=[*RESERVED], show_progress=False,
                                      unk_token=RESERVED[UNK])  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


class Subwords:
    """A tokeniser of sub-words, with the same reserved tokens 0 to 3 as `Words`.

    text: of a tokenizer.json, by `learn_subwords` or another program.
    ValueError if it is none, or if its first tokens are others.
    """

    def __init__(self, text: str):
        try:
            self.tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # that is what the library raises
            raise ValueError(f"text: expected that of a tokenizer.json, {error}") from error
        if (first := tuple(self.tokenizer.id_to_token(token) for token in range(len(RESERVED)))) != RESERVED:
            raise ValueError(f"text: its first tokens are {first}, expected {RESERVED}")
        self.tokenizer.encode_special_tokens = True  # who types "<eos>" means these five signs
        self.text = text

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> Int[Tensor, " time"]:
        """The tokens of a text, then that of the end."""
        return torch.tensor([*self.tokenizer.encode(text, add_special_tokens=False).ids, EOS])

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens up to the end."""
        text = []
        for token in tokens:
            if token == EOS:
                break
            if token not in (PAD, BOS):
                text.append(token)
        return self.tokenizer.decode(text)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """The text of each token; of one in the middle of a letter, a sign that stands for it."""
        return [RESERVED[token] if token < len(RESERVED) else self.tokenizer.decode([token]) for token in tokens]

    def sizes(self) -> Int[Tensor, " vocab"]:
        """How many bytes of text each token is, one of `learn_subwords`: 0 of those reserved, and of marks."""
        marks = self.tokenizer.get_added_tokens_decoder()
        pieces = sorted(self.tokenizer.get_vocab().items(), key=lambda one: one[1])
        return torch.tensor([0 if token in marks else len(piece) for piece, token in pieces])
