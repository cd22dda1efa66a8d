"""Texts that are written side by side are those that each is alone, whenever they come and go."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.decoding import continuous
from thalweg.decoding.continuous import ContinuousBatch
from thalweg.decoding.sampling import complete, greedy, repetition_penalty, sampling
from thalweg.models.language.gpt import GPT
from thalweg.models.language.llama import Llama
from thalweg.models.language.recurrent import RecurrentLanguageModel
from thalweg.models.language.rotary_gpt import RotaryGPT

MODELS = {
    "llama": lambda: Llama(13, 40, embed_dim=12, num_layers=2, num_heads=3, num_key_value_heads=1, hidden_dim=16),
    "gpt": lambda: GPT(13, 40, embed_dim=12, num_layers=2, num_heads=3),
    "rotary": lambda: RotaryGPT(13, embed_dim=12, num_layers=2, num_heads=3),
}


def network(name="llama"):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return model


def alone(model, prompt, count, **more):
    return complete(model, [torch.tensor(prompt)], count, context=40, **more)[0].tolist()[len(prompt) :]


def written(batch, count):
    """So many tokens of every text, place to tokens."""
    texts = {}
    for _ in range(1000):
        for place, token in batch.step().items():
            texts.setdefault(place, []).append(token)
            if len(texts[place]) == count:
                batch.leave(place)
        if batch.free() == len(batch.places):
            return texts
    raise AssertionError("it does not end")


@pytest.mark.parametrize("name", MODELS)
def test_texts_of_different_lengths_are_written_as_each_alone(name):
    model = network(name)
    batch = ContinuousBatch(model, places=3, context=40)
    prompts = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11]]
    places = [batch.join(prompt, greedy) for prompt in prompts]
    texts = written(batch, 12)
    assert [texts[place] for place in places] == [alone(model, prompt, 12) for prompt in prompts]


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 20), st.integers(1, 9)), min_size=1, max_size=7), st.integers(1, 3)
)
def test_texts_that_come_and_go_at_any_time_are_written_as_each_alone(plan, places):
    model = network()
    batch = ContinuousBatch(model, places=places, context=40)
    waiting = [([(start + n * n) % 13 for n in range(length)], count) for start, length, count in plan]
    running, ended = {}, []
    while waiting or running:
        if waiting and batch.free():
            prompt, count = waiting.pop(0)
            running[batch.join(prompt, greedy)] = (prompt, count, [])
        for place, token in batch.step().items():
            prompt, count, text = running[place]
            text.append(token)
            if len(text) == count:
                batch.leave(place)
                ended.append(running.pop(place))
    assert len(ended) == len(plan)
    for prompt, count, text in ended:
        assert text == alone(model, prompt, count)


def test_each_text_is_drawn_by_its_own_rules():
    model = network()
    batch = ContinuousBatch(model, places=3, context=40)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    for generator in generators[:2]:
        batch.join([3, 1], sampling(temperature=2.0, generator=generator))
    batch.join([3, 1], sampling(temperature=2.0, generator=generators[2]), [repetition_penalty(3.0)])
    texts = written(batch, 9)
    assert texts[0] == texts[1] != texts[2]
    for place, seed, rules in ((0, 1, []), (2, 2, [repetition_penalty(3.0)])):
        choose = sampling(temperature=2.0, generator=torch.Generator().manual_seed(seed))
        assert texts[place] == alone(model, [3, 1], 9, choose=choose, rules=rules)


def test_a_long_prompt_is_read_in_pieces_between_which_others_are_written(monkeypatch):
    monkeypatch.setattr(continuous, "PIECE", 4)
    model = network()
    batch = ContinuousBatch(model, places=2, context=40)
    short = batch.join([5], greedy)
    assert list(batch.step()) == [short]
    prompt = [n % 13 for n in range(14)]
    long = batch.join(prompt, greedy)
    steps = [list(batch.step()) for _ in range(4)]
    assert steps == [[short], [short], [short], [short, long]]
    first = batch.places[long].tokens[14:]
    assert first == alone(model, prompt, 1)


@pytest.mark.parametrize("length", [9, 17, 20])
def test_who_is_being_read_keeps_what_has_been_read_while_others_are_written(monkeypatch, length):
    monkeypatch.setattr(continuous, "PIECE", 4)  # and room for 8, 16 and 32 tokens
    model = network()
    batch = ContinuousBatch(model, places=3, context=40)
    prompt = [(5 * n + 1) % 13 for n in range(length)]
    long = batch.join(prompt, greedy)
    short = [batch.join([n], greedy) for n in (3, 4)]
    texts = written(batch, 12)
    assert texts[long] == alone(model, prompt, 12)
    assert [texts[place] for place in short] == [alone(model, [n], 12) for n in (3, 4)]


def test_what_begins_as_a_text_before_is_read_from_where_it_differs():
    model = network()
    read = []
    features = model.features
    model.features = lambda tokens, cache=None: read.append(tokens.numel()) or features(tokens, cache)
    batch = ContinuousBatch(model, places=2, context=40)
    prompt = [n % 13 for n in range(20)]
    batch.join(prompt, greedy)
    first = written(batch, 3)[0]
    read.clear()
    turn = [*prompt, *first, 7, 8]
    place = batch.join(turn, greedy)
    texts = written(batch, 5)
    assert sum(read) < 12
    assert texts[place] == alone(model, turn, 5)
    other = batch.join([12, *turn], greedy)  # begins in another way: nothing of it has been read
    assert written(batch, 5)[other] == alone(model, [12, *turn], 5)


def test_a_text_ends_where_the_context_does():
    batch = ContinuousBatch(network(), places=1, context=8)
    batch.join([1, 2, 3], greedy)
    assert [len(batch.step()) for _ in range(7)] == [1, 1, 1, 1, 1, 0, 0]


def test_what_cannot_join_is_refused_by_name():
    with pytest.raises(ValueError, match="places=0: expected at least 1"):
        ContinuousBatch(network(), places=0, context=8)
    batch = ContinuousBatch(network(), places=1, context=8)
    for prompt in ([], list(range(8))):
        with pytest.raises(ValueError, match=rf"prompt: {len(prompt)} tokens, expected 1 to 7 for context=8"):
            batch.join(prompt, greedy)
    batch.join([1], greedy)
    with pytest.raises(ValueError, match="places: all 1 are taken"):
        batch.join([1], greedy)
    with pytest.raises(TypeError, match="RecurrentLanguageModel keeps no KeyValueCache"):
        ContinuousBatch(RecurrentLanguageModel(5), places=1, context=8)
