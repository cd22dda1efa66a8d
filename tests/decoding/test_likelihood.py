"""How probable answers are behind a prompt: against the chain of conditional probabilities, and against one pass a text."""

import pytest
import torch
from tiny_writer import model as tiny
from tiny_writer import tokenizer

from thalweg.build import build
from thalweg.decoding.likelihood import Choice, choose, log_likelihoods
from thalweg.models.language.gpt import GPT
from thalweg.models.language.llama import Llama
from thalweg.models.language.recurrent import RecurrentLanguageModel
from thalweg.models.language.rotary_gpt import RotaryGPT

PROMPT, ANSWERS = [7, 3, 20, 5], [[4], [9, 9, 1, 30], [9, 2]]


def network(family):
    if family is RotaryGPT:
        made = build(RotaryGPT, vocab_size=302, embed_dim=16, num_layers=2, num_heads=2)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=1.0)
        return made.double().eval()
    return tiny(family).double()


@pytest.mark.parametrize("family", [GPT, Llama, RotaryGPT])
@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[:1]])
def test_it_is_the_sum_of_the_conditional_log_probabilities(family, prompt):
    model = network(family)
    model.requires_grad_(False)
    expected = []
    for answer in ANSWERS:
        text, total = list(prompt), 0.0
        for token in answer:
            scores = model(torch.tensor([text]))[0, -1].exp()
            total += float(torch.log(scores[token] / scores.sum()))
            text.append(token)
        expected.append(total)
    found = log_likelihoods(model, prompt, ANSWERS)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)
    turned = log_likelihoods(model, prompt, ANSWERS[::-1])
    torch.testing.assert_close(turned, found.flip(0), rtol=0, atol=1e-10)


def test_the_probabilities_of_all_answers_of_one_token_sum_to_one():
    found = log_likelihoods(tiny().double(), PROMPT, [[token] for token in range(302)])
    assert abs(float(found.exp().sum()) - 1) < 1e-10


def test_a_choice_is_given_what_the_texts_begin_with_though_the_prompts_last_token_is_another():
    model = tiny().double()

    def encode(text):
        """Letters, of which a and b are one token where they meet."""
        return [10 + "xabc".index(letter) if letter in "xabc" else 9 for letter in text.replace("ab", "_")]

    found = choose(model, encode, "xba", ["xbab", "xbaac"], context=64)
    torch.testing.assert_close(found.score, log_likelihoods(model, [10, 12], [[9], [11, 11, 13]]))
    assert found.length == [1, 3]
    apart = choose(model, encode, "xbc", ["xbca", "xbcbb"], context=64)
    torch.testing.assert_close(apart.score, log_likelihoods(model, [10, 12, 13], [[11], [12, 12]]))


def test_what_is_as_probable_as_another_is_not_right_and_a_mean_forgives_length():
    assert not Choice(torch.tensor([-1.0, -1.0]), [1, 1]).right(0)
    long = Choice(torch.tensor([-3.0, -4.0]), [1, 4])
    assert long.right(0)
    assert not long.right(1)
    assert long.right(1, per_token=True)
    assert not Choice(torch.tensor([-1.0, torch.nan]), [1, 1]).right(0)


def test_what_cannot_be_asked_is_refused():
    model, encode = tiny(), lambda text: tokenizer().encode(text).ids
    with pytest.raises(ValueError, match=r"prompt, answers: 0 and \[1\] tokens"):
        log_likelihoods(model, [], [[1]])
    with pytest.raises(ValueError, match=r"4 and \[1, 0\] tokens"):
        log_likelihoods(model, PROMPT, [[1], []])
    with pytest.raises(ValueError, match="tokens with an answer, expected at most 4 for context=3"):
        choose(model, encode, "the", ["the river and the valley", "the way"], context=3)
    with pytest.raises(ValueError, match="have no token in common"):
        choose(model, encode, "x", ["水", "the"], context=64)
    recurrent = RecurrentLanguageModel(vocab_size=302, hidden_dim=8)
    with pytest.raises(TypeError, match="RecurrentLanguageModel keeps no KeyValueCache a layer"):
        log_likelihoods(recurrent, PROMPT, ANSWERS)
