"""What holds for every decoder-only model: GPT as published, and its fast form."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from thalweg.decoding.continuous import ContinuousBatch
from thalweg.decoding.sampling import complete, greedy
from thalweg.layers.position import rotation
from thalweg.models.language.gpt import GPT, gpt2, gpt2_large, gpt2_medium, gpt2_xl, gpt3
from thalweg.models.language.llama import Llama, llama3_8b, llama_7b, mistral_7b, smollm2_135m
from thalweg.models.language.rotary_gpt import RotaryGPT
from thalweg.vocabulary import LanguageModel

MODELS = {
    "gpt": lambda: GPT(11, 16, embed_dim=12, num_layers=2, num_heads=3),
    "rotary": lambda: RotaryGPT(11, embed_dim=12, num_layers=2, num_heads=3),
    "rotary, tied, plain": lambda: RotaryGPT(11, embed_dim=12, num_layers=2, num_heads=3, tied=True, qk_norm=False),
    "llama": lambda: Llama(11, 16, embed_dim=12, num_layers=2, num_heads=3, hidden_dim=16, num_key_value_heads=1, tied=False),
    "llama, a window": lambda: Llama(11, 16, 12, 5, 3, num_key_value_heads=1, hidden_dim=16, window=4),
    "llama, tied, stretched": lambda: Llama(11, 16, 12, 2, 3, head_dim=6, hidden_dim=16, stretch=[4.0, 1.0, 4.0, 16]),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request):
    model = request.param().double().eval()
    for parameter in model.parameters():  # of order one, so that every part of the model is felt
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture
def tokens():
    return torch.randint(11, (3, 16))


def test_it_is_a_language_model(model, tokens):
    assert isinstance(model, LanguageModel)
    assert model(tokens).shape == (3, 16, 11)


def test_changing_the_future_changes_nothing_before_it(model, tokens):
    before = model(tokens)
    for place in (1, 7, 15):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 11
        after = model(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place:], before[:, place:])


def test_every_place_hears_from_all_places_before_it_and_from_none_after(model, tokens):
    held = {}
    model.embedding.register_forward_hook(lambda _, __, out: held.update(x=out.requires_grad_()) or out)
    logits = model(tokens[:1])
    for place in range(16):
        gradient = torch.autograd.grad(logits[0, place].square().sum(), held["x"], retain_graph=True)[0][0].norm(dim=-1)
        assert (gradient[: place + 1] > 0).all()
        assert (gradient[place + 1 :] == 0).all()


@pytest.mark.parametrize("pieces", [(16,), (9,) + 7 * (1,), (1, 4, 6, 5), 16 * (1,)])
def test_reading_through_the_cache_in_pieces_is_reading_at_once(model, tokens, pieces):
    cache = model.new_cache(3, 16)
    parts = [model(part, cache) for part in tokens.split(pieces, 1)]
    assert (torch.cat(parts, 1) - model(tokens)).abs().max() <= 1e-10


def test_texts_of_a_batch_do_not_hear_each_other(model, tokens):
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(model(tokens[order]), model(tokens)[order], atol=1e-10, rtol=0)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_an_untrained_model_finds_every_token_about_as_likely(make):
    model, tokens = make().eval(), torch.randint(11, (20, 16))
    assert abs(cross_entropy(model(tokens).flatten(0, 1), torch.randint(11, (320,))) - math.log(11)) < 0.05


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_parameter_receives_a_gradient(make, tokens):
    model = make()
    cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_dropout_acts_in_training_alone(tokens):
    for model in (GPT(11, 16, 12, 2, 3, dropout=0.5), RotaryGPT(11, 12, 2, 3, dropout=0.5)):
        assert not torch.equal(model(tokens), model(tokens))
        model.eval()
        assert torch.equal(model(tokens), model(tokens))


def test_rotary_attention_hears_distances_and_not_places():
    attention = RotaryGPT(11, embed_dim=12, num_layers=1, num_heads=3).double().blocks[0].attention
    torch.nn.init.normal_(attention.output.weight)
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    near, far, stretched = (attention(x, rotation(start, 5, 4, x, base)) for start, base in ((0, 1e4), (30, 1e4), (0, 10)))
    assert (near - far).abs().max() <= 1e-10
    assert (near - stretched).abs().max() > 1e-3


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_texts_of_different_lengths_go_on_side_by_side_as_each_alone(make, tokens):
    model = make().double().eval()
    cache = model.new_cache(3, 16)
    for layer in cache:
        layer.key.zero_(), layer.value.zero_()
    lengths = [9, 2, 14]
    for row, length in enumerate(lengths):
        model(tokens[row : row + 1, :length], [layer.row(row, 0) for layer in cache])
    last = torch.stack([tokens[row, length] for row, length in enumerate(lengths)])
    length = torch.tensor(lengths)
    mask = (torch.arange(15) <= length[:, None])[:, None, None]
    together = model(last[:, None], [layer.rows(length, mask) for layer in cache])
    for row, count in enumerate(lengths):
        alone = model(tokens[row : row + 1, : count + 1])[:, -1:]
        assert (together[row] - alone).abs().max() <= 1e-10


def test_in_bf16_the_answer_is_nearly_the_same(tokens):
    for make in MODELS.values():
        model = make().eval()
        with torch.autocast("cpu", torch.bfloat16):
            assert (model(tokens) - model.float()(tokens)).abs().max() < 0.05


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (gpt2, 124_439_808),
        (gpt2_medium, 354_823_168),
        (gpt2_large, 774_030_080),
        (gpt2_xl, 1_557_611_200),
        (gpt3, 174_604_259_328),
        (smollm2_135m, 134_515_008),
        (llama_7b, 6_738_415_616),
        (llama3_8b, 8_030_261_248),
        (mistral_7b, 7_241_732_096),
    ],
)
def test_the_sizes_are_those_published(make, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == parameters


def test_what_does_not_fit_is_refused_by_name(tokens):
    with pytest.raises(ValueError, match=r"embed_dim=10: expected a multiple of num_heads=3"):
        GPT(11, 16, embed_dim=10, num_heads=3)
    with pytest.raises(ValueError, match=r"embed_dim=10: expected a multiple of num_heads=3"):
        RotaryGPT(11, embed_dim=10, num_heads=3)
    with pytest.raises(ValueError, match=r"17 of them, the model reads at most context=16"):
        GPT(11, 16, 12, 1, 3)(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ValueError, match=r"17 of them, the model reads at most context=16"):
        Llama(11, 16, 12, 1, 3, hidden_dim=8)(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ValueError, match=r"embed_dim=10: expected a multiple of num_heads=3, or a head_dim"):
        Llama(11, 16, 10, 1, 3)
    with pytest.raises(ValueError, match=r"window=0: expected at least 1"):
        Llama(11, 16, 12, 1, 3, window=0)
    with pytest.raises(ValueError, match=r"num_key_value_heads=2: expected a divisor of num_heads=3"):
        Llama(11, 16, 12, 1, 3, 2)


def windowed(num_layers, window):
    model = Llama(11, 16, 12, num_layers, 3, num_key_value_heads=1, hidden_dim=16, window=window).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_with_a_window_each_block_hears_of_so_many_places(tokens):
    for num_layers, heard in ((1, 4), (2, 7)):
        model, held = windowed(num_layers, 4), {}
        model.embedding.register_forward_hook(lambda _, __, out, held=held: held.update(x=out.requires_grad_()) or out)
        logits = model(tokens[:1])
        for place in range(16):
            gradient = torch.autograd.grad(logits[0, place].square().sum(), held["x"], retain_graph=True)[0][0].norm(dim=-1)
            assert (gradient > 0).nonzero().flatten().tolist() == [*range(max(0, place + 1 - heard), place + 1)]


def test_one_block_with_a_window_says_what_one_without_says_of_the_last_places_alone(tokens):
    model = windowed(1, 5)
    whole = model(tokens)
    model.window = None
    for place in range(5, 16):  # angles tell how far apart places are, not where they stand
        torch.testing.assert_close(whole[:, place], model(tokens[:, place - 4 : place + 1])[:, -1], rtol=0, atol=1e-10)


def test_a_window_hears_the_same_of_a_cache(tokens):
    model = windowed(2, 4)
    cache, whole = model.new_cache(3, 16), model(tokens)
    parts = [model(part, cache) for part in tokens.split([1, 6, 1, 8], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-10)
    alone = [[int(token) for token in row[:length]] for row, length in zip(tokens, (9, 5, 12), strict=True)]
    batch = ContinuousBatch(model, places=3, context=16)
    for text in alone:
        batch.join(text, greedy)
    for _ in range(20):
        batch.step()
    for place, text in zip(batch.places, alone, strict=True):
        said = complete(model, [torch.tensor(text)], len(place.tokens) - len(text), context=16)[0]
        assert place.tokens == said.tolist()
        assert len(place.tokens) == 16
