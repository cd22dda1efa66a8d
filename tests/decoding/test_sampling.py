"""Greedy decoding and sampling against their definitions; generation through the cache against generation without."""

import math
from itertools import islice

import pytest
import torch

from thalweg.decoding.sampling import (
    complete,
    constrained,
    generate,
    greedy,
    keep_min_p,
    keep_nucleus,
    keep_top_k,
    one_of,
    repetition_penalty,
    sampling,
)
from thalweg.models.language.gpt import GPT
from thalweg.models.language.rotary_gpt import RotaryGPT


@pytest.fixture(params=["gpt", "rotary"])
def model(request):
    model = (GPT(7, 10, 12, 2, 3) if request.param == "gpt" else RotaryGPT(7, 12, 2, 3)).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def without_cache(model, prompt, length, context):
    """The most probable continuation, every step of it from the text as a whole; after `context` from its last half on."""
    text, first = prompt.tolist(), max(0, len(prompt) - context)
    for _ in range(length):
        if len(text) - first > context:
            first = len(text) - context // 2
        text.append(int(model(torch.tensor([text[first:]]))[0, -1].argmax()))
    return text


def test_greedy_decoding_is_a_chain_of_the_most_probable(model):
    for prompt in (torch.tensor([3]), torch.tensor([1, 2, 3, 4])):
        assert complete(model, [prompt], 6, context=10)[0].tolist() == without_cache(model, prompt, 6, 10)


def test_a_text_longer_than_the_context_goes_on_from_its_last_half(model):
    for prompt in (torch.tensor([3, 5]), torch.arange(14) % 7):
        assert complete(model, [prompt], 25, context=10)[0].tolist() == without_cache(model, prompt, 25, 10)


def test_prompts_of_different_lengths_go_on_as_each_would_alone(model):
    prompts = [torch.tensor([3]), torch.tensor([1, 2, 3, 4]), torch.tensor([6, 6])]
    together = complete(model, prompts, 5, context=10)
    alone = [complete(model, [prompt], 5, context=10)[0] for prompt in prompts]
    assert [text.tolist() for text in together] == [text.tolist() for text in alone]


def test_tokens_come_one_by_one_and_each_is_read_once(model):
    read = []
    model.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    tokens = generate(model, [torch.tensor([1, 2, 3])], context=10)
    assert read == []
    assert next(tokens).shape == (1,)
    assert read == [3]
    list(islice(tokens, 4))
    assert read == [3, 1, 1, 1, 1]


def test_the_same_generator_draws_the_same_text(model):
    def text(seed):
        choose = sampling(temperature=1.5, generator=torch.Generator().manual_seed(seed))
        return complete(model, [torch.tensor([1])], 9, choose, context=10)[0].tolist()

    assert text(1) == text(1)
    assert text(1) != text(2)


def naive_top_k(logits, top_k):
    kept = sorted(range(len(logits)), key=lambda i: -logits[i])[:top_k]
    return [logits[i] if i in kept else -math.inf for i in range(len(logits))]


def naive_nucleus(logits, top_p):
    total = sum(math.exp(value) for value in logits)
    kept, mass = set(), 0.0
    for i in sorted(range(len(logits)), key=lambda i: -logits[i]):
        if mass >= top_p:
            break
        kept.add(i)
        mass += math.exp(logits[i]) / total
    return [logits[i] if i in kept else -math.inf for i in range(len(logits))]


@pytest.mark.parametrize("top_k", [1, 3, 9, 50])
def test_top_k_is_its_definition(top_k):
    logits = torch.randn(6, 9, dtype=torch.float64)
    assert keep_top_k(logits, top_k).tolist() == [naive_top_k(row, top_k) for row in logits.tolist()]


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9, 1.0])
def test_the_nucleus_is_its_definition(top_p):
    logits = 3 * torch.randn(6, 9, dtype=torch.float64)
    assert keep_nucleus(logits, top_p).tolist() == [naive_nucleus(row, top_p) for row in logits.tolist()]


@pytest.mark.parametrize("min_p", [1e-9, 0.1, 1.0])
def test_min_p_is_its_definition(min_p):
    logits = 2 * torch.randn(6, 9, dtype=torch.float64)
    for row, found in zip(logits.tolist(), keep_min_p(logits, min_p).tolist(), strict=True):
        largest = max(math.exp(value) for value in row)
        assert found == [value if math.exp(value) >= min_p * largest * (1 - 1e-12) else -math.inf for value in row]


def test_what_was_read_is_penalised_once_however_often_it_was_read():
    logits = torch.tensor([[2.0, -2.0, 3.0, -1.0], [1.0, 1.0, 1.0, 1.0]])
    tokens = torch.tensor([[0, 1, 0], [3, 3, 3]])
    found = repetition_penalty(2.0)(logits, tokens)
    assert found.tolist() == [[1.0, -4.0, 3.0, -1.0], [1.0, 1.0, 1.0, 0.5]]


def test_a_penalty_makes_a_text_of_more_different_tokens(model):
    prompt = torch.tensor([1, 2])
    plain, penalised = (complete(model, [prompt], 8, context=10, rules=rules)[0] for rules in ([], [repetition_penalty(1e3)]))
    assert len(penalised.unique()) > len(plain.unique())


def test_a_constraint_leaves_what_may_follow_and_refuses_a_dead_end(model):
    even = constrained(lambda text: {(text[-1] + step) % 7 for step in (2, 4)})
    text = complete(model, [torch.tensor([0]), torch.tensor([5])], 12, context=10, rules=[even])
    for row in text:
        assert set((row.diff() % 7).tolist()) <= {2, 4}
    with pytest.raises(ValueError, match=r"allowed: nothing may follow the tokens \[3\]"):
        complete(model, [torch.tensor([3])], 1, context=10, rules=[constrained(lambda text: ())])


def test_a_rule_does_not_judge_a_prompt_that_is_still_read(model):
    def allowed(text):
        return {1, 2} if text[-1] in (1, 2) else ()  # nothing may follow the 5 and the 6 of the longer prompt

    prompts = [torch.tensor([1]), torch.tensor([5, 6, 6, 2])]
    for row in complete(model, prompts, 3, context=10, rules=[constrained(allowed)]):
        assert set(row[-3:].tolist()) <= {1, 2}


def test_one_of_some_answers_is_the_most_probable_where_they_part(model):
    answers, prompt = [[1, 2], [1, 3, 3], [4]], torch.tensor([2, 5])
    row = complete(model, [prompt], 6, context=10, rules=[one_of(answers, start=2, end=0)])[0].tolist()[2:]
    said = row[: row.index(0)]
    assert said in answers
    assert set(row[len(said) :]) == {0}
    with pytest.raises(ValueError, match="answers: none"):
        one_of([], 0, 0)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, [8, 4, 2, 1, 1]),
        ({"temperature": 0.5}, [64, 16, 4, 1, 1]),
        ({"temperature": 2.0, "top_k": 3}, [8**0.5, 2, 2**0.5, 0, 0]),
        ({"top_p": 0.7}, [8, 4, 0, 0, 0]),
        ({"min_p": 0.25}, [8, 4, 2, 0, 0]),
        ({"temperature": 0.5, "min_p": 0.25}, [64, 16, 0, 0, 0]),  # after the temperature
        ({"top_k": 2, "top_p": 0.6}, [8, 0, 0, 0, 0]),  # the nucleus of what top_k left: 8 / 12 is enough
    ],
)
def test_tokens_are_drawn_as_often_as_their_probability_says(options, weights):
    logits = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0]).log().expand(20000, 5)
    drawn = sampling(generator=torch.Generator().manual_seed(0), **options)(logits)
    expected = torch.tensor(weights) / sum(weights)
    assert (drawn.bincount(minlength=5) / len(drawn) - expected).abs().max() < 0.015  # four standard deviations
    assert (drawn.bincount(minlength=5)[expected == 0] == 0).all()


def test_no_temperature_is_greedy():
    assert sampling(temperature=0) is greedy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature=-1: expected at least 0"),
        ({"top_k": 0}, "top_k=0: expected at least 1"),
        ({"top_p": 0.0}, r"top_p=0.0: expected a number in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"min_p": 0.0}, r"min_p=0.0: expected a number in \(0, 1\]"),
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        sampling(**options)


def test_prompts_that_mean_nothing_are_refused_before_work_starts(model):
    for prompts, context in ([[], 10], [[torch.tensor([], dtype=torch.long)], 10], [[torch.tensor([1])], 1]):
        with pytest.raises(ValueError, match=rf"prompts of .* tokens, context={context}"):
            generate(model, prompts, context=context)
    with pytest.raises(ValueError, match="length=0"):
        complete(model, [torch.tensor([1])], 0, context=10)
