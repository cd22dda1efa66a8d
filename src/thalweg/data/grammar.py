"""Sentences of a small grammar and their trees, written as sequences of words and brackets.   LEE: RNN

    the old dog sees a cat with a stick -> ( s ( np the old dog ) ( vp ( vp sees ( np a cat ) ) ( pp with ( np a stick ) ) ) )

Vinyals et al. 2014, "Grammar as a foreign language", arXiv:1412.7449: a tree is a sentence of another language.
"""

import random

from thalweg.data.pairs import Corpus, Pair, apart

NOUNS, ADJECTIVES = ("dog", "cat", "man", "girl", "king", "horse"), ("old", "small", "red", "happy")
VERBS, STATES = ("sees", "hits", "likes", "follows"), ("sleeps", "runs", "smiles")
DEPTH = 3  # noun phrases inside of noun phrases at most


def _noun_phrase(draw: random.Random, depth: int) -> str:
    words = [draw.choice(("the", "a")), *draw.choices(ADJECTIVES, k=draw.choice((0, 0, 1))), draw.choice(NOUNS)]
    phrase, more = f"( np {' '.join(words)} )", draw.random() if depth < DEPTH else 1.0
    if more < 0.2:  # what follows "of" belongs to the noun, what follows "with" to what is done
        return f"( np {phrase} ( pp of {_noun_phrase(draw, depth + 1)} ) )"
    return f"( np {phrase} ( sbar that {_verb_phrase(draw, depth + 1)} ) )" if more < 0.35 else phrase


def _verb_phrase(draw: random.Random, depth: int) -> str:
    if draw.random() < 0.3:
        phrase = f"( vp {draw.choice(STATES)} )"
    else:
        phrase = f"( vp {draw.choice(VERBS)} {_noun_phrase(draw, depth + 1)} )"
    return f"( vp {phrase} ( pp with {_noun_phrase(draw, depth + 1)} ) )" if draw.random() < 0.25 else phrase


def trees(count: int = 6000, held_out: int = 100, seed: int = 0) -> Corpus:
    """Different sentences, each with its tree; no sentence is in two parts."""
    draw, made = random.Random(seed), dict[Pair, None]()
    for _ in range(count):
        tree = f"( s {_noun_phrase(draw, 1)} {_verb_phrase(draw, 1)} )"
        made[" ".join(leaves(tree)), tree] = None
    return apart([*made], held_out)


def leaves(tree: str) -> list[str]:
    """The words of a sentence in a written tree: all but brackets and what follows one that opens."""
    tokens = tree.split()
    return [token for before, token in zip(["", *tokens], tokens, strict=False) if token not in ("(", ")") and before != "("]
