"""Skip-Thought: the loss is its formula, padding says nothing, and sentences of one story come to lie near each other."""

import random
from itertools import pairwise

import pytest
import torch
from definitions import equal_with_gradients

from thalweg.build import build, load, save
from thalweg.data.streams import Padded
from thalweg.data.wordpieces import WordPieces, learn_wordpieces
from thalweg.models.sequence.skip_thought import SkipThought
from thalweg.tasks.skip_thoughts import SkipThoughts
from thalweg.training import Experiment, Training, evaluate
from thalweg.training.optimisers import adamw

NAMES = ("before_tokens", "tokens", "after_tokens")
STORIES = [("the river", "the way down", "water finds it"), ("a", "the valley and the river", "down"), ("it", "way", "the a")]
TOKENIZER = learn_wordpieces([text for story in STORIES for text in story], 60)


def threes(stories, tokenizer):
    """The tokens of the sentences of stories, by their place."""
    pieces = WordPieces(tokenizer)
    sides = zip(*stories, strict=True)
    return {name: [torch.tensor(one.ids) for one in pieces.encode(side)] for name, side in zip(NAMES, sides, strict=True)}


def small(**sizes):
    model = build(SkipThought, **{"vocab_size": 60, "embed_dim": 5, "hidden_dim": 6, **sizes})
    return build(SkipThoughts, model=model, tokenizer=TOKENIZER)


def gru_step(rnn, suffix, x, h):
    """r, z: how much of the past is asked and kept; n: what is to come in its place."""
    inputs = (getattr(rnn, f"weight_ih_l0{suffix}") @ x + getattr(rnn, f"bias_ih_l0{suffix}")).chunk(3)
    states = (getattr(rnn, f"weight_hh_l0{suffix}") @ h + getattr(rnn, f"bias_hh_l0{suffix}")).chunk(3)
    r, z = torch.sigmoid(inputs[0] + states[0]), torch.sigmoid(inputs[1] + states[1])
    return (1 - z) * torch.tanh(inputs[2] + r * states[2]) + z * h


def test_it_is_its_formula_a_sentence_and_a_word_at_a_time():
    task = small().double()
    model, ragged, total, count = task.model, threes(STORIES, TOKENIZER), 0.0, 0
    embed = model.encoder.embedding.weight
    for before, sentence, after in zip(*(ragged[name] for name in NAMES), strict=True):
        forward = backward = torch.zeros(3, dtype=torch.float64)
        for token in sentence:
            forward = gru_step(model.encoder.rnn, "", embed[token], forward)
        for token in reversed(sentence):
            backward = gru_step(model.encoder.rnn, "_reverse", embed[token], backward)
        v = torch.cat([forward, backward])
        for rnn, target in ((model.before, before), (model.after, after)):
            state = v
            for read, word in pairwise(target):
                state = gru_step(rnn, "", torch.cat([embed[read], v]), state)
                total = total - (model.head.weight @ state + model.head.bias).log_softmax(0)[word]
                count += 1
    ours, terms = task.loss(next(iter(Padded(ragged, {}, 3, padding=task.pieces.pad))))
    assert terms == count
    equal_with_gradients(ours, total, [*model.parameters()])


def test_the_vectors_are_those_of_the_sentence_alone_and_are_found_again_on_disk(tmp_path):
    task = small().eval()
    texts = [text for story in STORIES for text in story]
    vectors = task.vectors(texts, batch_size=4)
    for text, vector in zip(texts, vectors, strict=True):
        tokens = torch.tensor([task.pieces.encode([text])[0].ids])
        alone = task.model.encode(tokens, torch.ones_like(tokens, dtype=torch.bool))[0]
        torch.testing.assert_close(vector, alone / alone.norm())
    save(task, tmp_path)
    assert torch.equal(load(tmp_path).predict({"text": texts})["vector"], task.predict({"text": texts})["vector"])


@pytest.mark.parametrize(("gradient", "near"), [(True, True), (False, False)])
def test_sentences_of_one_story_lie_near_each_other_once_they_foretell_each_other(gradient, near):
    """Eight stories have 24 words each; without the gradient through the vector, who reads learns nothing."""
    draw = random.Random(0)
    stories = [[f"{consonant}{vowel}{end}" for vowel in "aeiou" for end in "nrstx"][:24] for consonant in "bdfgklmp"]

    def told(count):
        return [tuple(" ".join(draw.sample(words, 3)) for _ in NAMES) for words in stories for _ in range(count)]

    learned, asked = told(60), told(8)
    tokenizer = learn_wordpieces([word for words in stories for word in words], 400)
    model = build(SkipThought, vocab_size=len(WordPieces(tokenizer)), embed_dim=24, hidden_dim=32)
    model.encoder.requires_grad_(gradient)
    task = build(SkipThoughts, model=model, tokenizer=tokenizer)
    stream = Padded(threes(learned, tokenizer), {}, 32, padding=task.pieces.pad, shuffle=True)
    experiment = Experiment(task=task, train=stream, steps=200, optimizer=adamw(1e-2), clip=1.0)
    training = Training(experiment, precision="fp32")
    for _ in training:
        pass
    found = dict(evaluate(training, Padded(threes(asked, tokenizer), {}, 64, padding=task.pieces.pad)))
    assert (found["mrr"] > 0.23) == near  # any of 64: 0.07; those that share words: 0.15; any of the right story: 0.34
