"""Recurrent language models against their equations."""

import checks
import pytest
import torch
from definitions import equal_with_gradients
from torch.nn.functional import one_hot

from thalweg.build import build, load, save
from thalweg.models.language.recurrent import RecurrentLanguageModel


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_each_layer_reads_the_states_of_the_one_below_a_place_at_a_time(cell):
    model = RecurrentLanguageModel(vocab_size=5, hidden_dim=3, num_layers=2, cell=cell).double()
    tokens = torch.randint(5, (2, 6))
    weight = dict(model.rnn.named_parameters())

    def step(x, h, layer):
        w, u, b, c = (weight[f"{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        now, before = x @ w.T + b, h @ u.T + c
        if cell == "rnn":
            return (now + before).tanh()
        (r, z, n), (rh, zh, nh) = now.chunk(3, -1), before.chunk(3, -1)
        keep = (z + zh).sigmoid()
        return (1 - keep) * (n + (r + rh).sigmoid() * nh).tanh() + keep * h

    def naive(tokens):
        states, logits = [torch.zeros(2, 3, dtype=torch.float64)] * 2, []
        for x in one_hot(tokens, 5).double().unbind(1):
            for layer in range(2):
                x = states[layer] = step(x, states[layer], layer)
            logits.append(x @ model.head.weight.T + model.head.bias)
        return torch.stack(logits, 1)

    equal_with_gradients(model(tokens), naive(tokens), [*model.parameters()])


def test_what_is_read_is_one_hot_unless_it_is_embedded():
    assert RecurrentLanguageModel(4).rnn.input_size == 4
    assert RecurrentLanguageModel(4, embed_dim=7).rnn.input_size == 7


def test_after_a_prefix_the_state_is_another_and_so_is_what_follows():
    model = RecurrentLanguageModel(vocab_size=5, hidden_dim=8, cell="lstm").eval()
    said = []
    for prefix in ([0, 1, 2], [2, 1, 0]):
        cache = model.new_cache(1, 3)
        assert not any(part.any() for part in cache)
        model(torch.tensor([prefix]), cache)
        assert all(part.all() for part in cache)
        said.append(model(torch.tensor([[3]]), cache))
    assert (said[0] - said[1]).abs().max() > 1e-4


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "irnn", "scrn", "qrnn"])
def test_every_cell_reads_on_from_its_state_and_learns_a_text(cell):
    """The text says which letter follows only by the one before the last."""
    torch.manual_seed(0)
    model = RecurrentLanguageModel(vocab_size=5, embed_dim=6, hidden_dim=24, num_layers=2, cell=cell)
    checks.reads_backwards_only(model.eval(), torch.randint(5, (3, 9)))
    tokens = torch.tensor([0, 1, 0, 2, 3, 1, 3, 4] * 40)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.01)
    for _ in range(120):
        start = int(torch.randint(8, ()))
        read = tokens[start : start + 96].view(3, 32)
        loss = torch.nn.functional.cross_entropy(model(read)[:, 4:-1].flatten(0, 1), read[:, 5:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert loss < 0.3  # of the letters alone it is 1.3


def test_another_cell_is_refused_by_name():
    with pytest.raises(ValueError, match="cell='elman': expected one of rnn, gru, lstm, irnn"):
        RecurrentLanguageModel(5, cell="elman")


@pytest.mark.parametrize("cell", ["lstm", "scrn"])
def test_tied_words_are_read_and_said_by_the_same_vectors(cell, tmp_path):
    model = build(RecurrentLanguageModel, vocab_size=5, embed_dim=8, hidden_dim=8, cell=cell, tied=True).double()
    tokens = torch.randint(5, (2, 6))
    states = []
    model.rnn.register_forward_hook(lambda module, read, output: states.append(output[0]))
    logits, _ = model(tokens), model(tokens)
    equal_with_gradients(logits, states[1] @ model.embedding.weight.T + model.head.bias, [model.embedding.weight])
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in model.rnn.parameters()) + 5 * 8 + 5
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert loaded.head.weight is loaded.embedding.weight
    assert torch.equal(loaded.double()(tokens), logits)
    with pytest.raises(ValueError, match="tied=True, embed_dim=4: expected hidden_dim=8"):
        RecurrentLanguageModel(5, embed_dim=4, hidden_dim=8, tied=True)
