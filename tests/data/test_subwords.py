"""Sub-words: merges counted by hand, any text kept, the file of another program read."""

import json
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.data.pairs import BOS, EOS, PAD, RESERVED, UNK
from thalweg.data.subwords import Subwords, learn_subwords, learn_unigrams

WORDS = ["low", "low", "lower", "newest", "newest", "newest", "widest"]
SUBWORDS = Subwords(learn_subwords(["Ein Mann fährt Fahrrad .", "A man rides a bike ."], 300))


def merged(text):
    return [tuple(pair) for pair in json.loads(text)["model"]["merges"]]


def test_the_most_frequent_pair_of_neighbours_is_merged_again_and_again():
    found, words = merged(learn_subwords(WORDS, 260 + 6)), [list(word) for word in WORDS]
    assert set(found[:2]) == {("e", "s"), ("es", "t")}
    assert len(found) == 6
    for pair in found:
        count = Counter(neighbours for word in words for neighbours in pairwise(word))
        assert count[pair] == max(count.values())
        for word in words:
            for place in range(len(word) - 2, -1, -1):
                if tuple(word[place : place + 2]) == pair:
                    word[place : place + 2] = ["".join(pair)]


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_comes_back(text):
    tokens = SUBWORDS.encode(text)
    assert tokens[-1] == EOS
    assert not set(tokens[:-1].tolist()) & {PAD, BOS, EOS, UNK}
    assert SUBWORDS.decode([BOS, *tokens.tolist(), PAD, 7]) == text


def test_who_types_the_name_of_a_reserved_token_means_its_letters():
    assert SUBWORDS.decode(SUBWORDS.encode("a <eos> b <pad>").tolist()) == "a <eos> b <pad>"


def test_a_frequent_word_is_one_token_and_its_pieces_say_so():
    tokens = Subwords(learn_subwords(["a man and a man"] * 9, 268)).encode("a man mann").tolist()
    assert Subwords(learn_subwords(["a man and a man"] * 9, 268)).pieces(tokens) == ["a", " man", " man", "n", "<eos>"]
    assert "".join(SUBWORDS.pieces(SUBWORDS.encode("A man fährt .").tolist())) == "A man fährt .<eos>"


def test_what_was_learned_is_a_tokenizer_json_and_is_learned_the_same_again():
    texts = ["Zwei junge weiße Männer", "Two young, white males"] * 5
    assert learn_subwords(texts, 300) == learn_subwords(texts, 300)
    held = json.loads(SUBWORDS.text)
    assert [token["content"] for token in held["added_tokens"]] == [*RESERVED]
    assert len(SUBWORDS) == len(held["model"]["vocab"]) <= 300
    assert torch.equal(Subwords(json.dumps(held, indent=2)).encode("Ein Mann"), SUBWORDS.encode("Ein Mann"))


def test_what_is_no_tokenizer_or_has_other_first_tokens_is_refused():
    with pytest.raises(ValueError, match=r"expected that of a tokenizer\.json"):
        Subwords("no json")
    held = json.loads(SUBWORDS.text)
    held["added_tokens"], held["model"]["vocab"] = [], {"a": 0, "b": 1}
    held["model"]["merges"] = []
    with pytest.raises(ValueError, match=r"its first tokens are \('a', 'b', None, None\)"):
        Subwords(json.dumps(held))
    with pytest.raises(ValueError, match="vocab_size=260: expected more than 260"):
        learn_subwords(["a"], 260)


CORPUS = ["the cat chased the other cats", "she was chasing cats and hats", "chased hats"] * 20


def test_unigrams_come_back_and_what_is_strange_is_unknown():
    text = learn_unigrams(CORPUS, 60)
    coder = Subwords(text)
    assert json.loads(text)["model"]["type"] == "Unigram"
    assert len(coder) <= 60
    for line in ["the cat chased the hats", "she chased cats"]:
        tokens = coder.encode(line)
        assert UNK not in tokens
        assert coder.decode(tokens.tolist()) == line
    assert UNK in coder.encode("the 猫")


def test_of_all_cuts_into_unigrams_the_most_probable_is_taken():
    text = learn_unigrams(CORPUS, 60)
    scores, coder = dict(json.loads(text)["model"]["vocab"]), Subwords(text)

    def best(rest):
        if not rest:
            return 0.0
        return max(scores[rest[:size]] + best(rest[size:]) for size in range(1, len(rest) + 1) if rest[:size] in scores)

    for word in ("chased", "hats", "chase", "cath"):
        pieces = coder.tokenizer.encode(word, add_special_tokens=False).tokens
        assert "".join(pieces) == f"▁{word}"
        assert sum(scores[piece] for piece in pieces) == pytest.approx(best(f"▁{word}"))
