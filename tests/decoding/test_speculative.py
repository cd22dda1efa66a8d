"""Speculative decoding writes what the large model alone would: by chance as often, greedily the same."""

import pytest
import torch

from thalweg.decoding.sampling import complete
from thalweg.decoding.speculative import judged, speculative
from thalweg.models.language.gpt import GPT
from thalweg.models.language.recurrent import RecurrentLanguageModel
from thalweg.models.language.rotary_gpt import RotaryGPT


def network(seed, make=GPT, **arguments):
    torch.manual_seed(seed)
    model = make(**{"vocab_size": 7, "embed_dim": 12, "num_layers": 2, "num_heads": 3, **arguments}).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


@pytest.mark.parametrize("make", [GPT, RotaryGPT])
def test_greedily_it_writes_what_the_large_model_writes_alone(make):
    more = {"context": 40} if make is GPT else {}
    model, draft = network(0, make, **more), network(1, make, **more, num_layers=1)
    for prompt, proposals in ((torch.tensor([3]), 1), (torch.tensor([1, 2, 3]), 4), (torch.tensor([5, 5]), 30)):
        found = speculative(model, draft, prompt, 25, proposals=proposals, temperature=0)
        assert found.tokens.tolist() == complete(model, [prompt], 25, context=40)[0].tolist()
        assert found.passes <= 25


def test_a_draft_that_is_the_model_itself_is_always_right_and_saves_passes():
    model = network(0, context=40)
    found = speculative(model, model, torch.tensor([2]), 25, proposals=4)
    assert found.accepted == 1
    assert found.passes == 5


def test_tokens_are_drawn_as_often_as_the_large_model_says_whatever_the_draft_says():
    random = torch.Generator().manual_seed(0)
    p = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.1, 0.1, 0.7], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    q = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    counts, second = torch.zeros(4), torch.zeros(4)
    for _ in range(6000):
        written = judged(p, q, torch.multinomial(q, 1, generator=random)[:, 0], random)
        counts[written[0]] += 1
        if len(written) > 1:
            second[written[1]] += 1
    assert (counts / counts.sum() - p[0]).abs().max() < 0.026  # four standard deviations
    assert (second / second.sum() - p[1]).abs().max() < 0.04


def test_where_both_agree_but_for_rounding_a_refusal_is_no_crash():
    p = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    q = p[:1] * (1 + 1e-3)  # every token a little more probable than it should be: nothing is left of p - q
    random = torch.Generator().manual_seed(0)
    written = [judged(p, q, torch.tensor([0]), random) for _ in range(5000)]
    assert min(map(len, written)) == 1  # it was refused now and then


def test_what_means_nothing_is_refused():
    model = network(0, context=40)
    with pytest.raises(ValueError, match="prompt of 0 tokens, length=3, proposals=0"):
        speculative(model, model, torch.tensor([], dtype=torch.long), 3, proposals=0)
    with pytest.raises(TypeError, match="cache: KeyValueCache, Tensor"):
        speculative(model, RecurrentLanguageModel(7, 4, 4), torch.tensor([1]), 3)
