"""Encoder-decoders of recurrent networks: their formulas a step at a time, and what each decoder sees of the source."""

import pytest
import torch
from definitions import equal_with_gradients
from torch import nn

from thalweg.build import build, load, save
from thalweg.data.pairs import UNK
from thalweg.models.sequence.seq2seq import AttentionSeq2Seq, Seq2Seq

SIZE = {"source_vocab_size": 9, "target_vocab_size": 7, "embed_dim": 3, "hidden_dim": 4}


def random(make, **arguments):
    """The model in float64 with numbers of order one."""
    model = make(**SIZE, **arguments).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def gru(x, h, weight_x, weight_h, bias_x, bias_h):
    """h' = (1 - z) n + z h, a step of one example."""
    (rx, zx, nx), (rh, zh, nh) = (weight_x @ x + bias_x).chunk(3), (weight_h @ h + bias_h).chunk(3)
    r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
    return (1 - z) * torch.tanh(nx + r * nh) + z * h


def lstm(x, state, weight_x, weight_h, bias_x, bias_h):
    """c' = f c + i g, h' = o tanh(c'), a step of one example."""
    h, c = state
    i, f, g, o = (weight_x @ x + bias_x + weight_h @ h + bias_h).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def weights(rnn, layer, backward=False):
    end = f"_l{layer}" + "_reverse" * backward
    return [getattr(rnn, name + end) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def read(encoder, tokens, start, step):
    """Outputs of the last layer, one a word, and the state of every layer: both directions side by side."""
    x, states = [encoder.embedding.weight[token] for token in tokens], []
    for layer in range(encoder.rnn.num_layers):
        sides = []
        for backward in (False, True):
            state, outputs = start, []
            for one in reversed(x) if backward else x:
                state = step(one, state, *weights(encoder.rnn, layer, backward))
                outputs.append(state)
            sides.append(outputs[::-1] if backward else outputs)
        hidden = [[state if step is gru else state[0] for state in side] for side in sides]
        x = [torch.cat(pair) for pair in zip(*hidden, strict=True)]
        ends = [(state,) if step is gru else state for state in (sides[0][-1], sides[1][0])]
        states.append([torch.cat(pair) for pair in zip(*ends, strict=True)])
    return x, states


@pytest.fixture
def sentences():
    """Sources of four and of two words, and their targets."""
    source, mask = torch.randint(9, (2, 4)), torch.ones(2, 4, dtype=torch.bool)
    mask[1, 2:] = False
    return source, mask, torch.randint(7, (2, 5))


@pytest.mark.parametrize(("cell", "step"), [("gru", gru), ("lstm", lstm)])
def test_without_attention_all_is_said_by_the_last_state_of_the_encoder(cell, step, sentences):
    model, (source, mask, target) = random(Seq2Seq, cell=cell, num_layers=2), sentences
    zeros = torch.zeros(2, dtype=torch.float64)
    logits = []
    for tokens, real, words in zip(source, mask, target, strict=True):
        _, states = read(model.encoder, tokens[real], zeros if step is gru else (zeros, zeros), step)
        context, state = states[-1][0], [s[0] if step is gru else tuple(s) for s in states]
        for word in words:
            x = torch.cat([model.embedding.weight[word], context])
            for layer in (0, 1):
                state[layer] = step(x, state[layer], *weights(model.rnn, layer))
                x = state[layer] if step is gru else state[layer][0]
            logits.append(model.head.weight @ x + model.head.bias)
    naive = torch.stack(logits).view(2, 5, 7)
    equal_with_gradients(model(source, mask, target), naive, list(model.parameters()))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_with_attention_the_context_is_another_at_every_step(num_layers, sentences):
    model, (source, mask, target) = random(AttentionSeq2Seq, num_layers=num_layers), sentences
    logits, looked = [], torch.zeros(2, 5, 4, dtype=torch.float64)
    attention, cell = model.attention, model.rnn
    for number, (tokens, real, words) in enumerate(zip(source, mask, target, strict=True)):
        outputs, states = read(model.encoder, tokens[real], torch.zeros(2, dtype=torch.float64), gru)
        state = states[-1][0]
        for t, word in enumerate(words):
            scores = [
                attention.score.weight[0] @ torch.tanh(attention.query.weight @ state + attention.key.weight @ output)
                for output in outputs
            ]
            share = torch.stack(scores).softmax(0)
            context = sum(a * output for a, output in zip(share, outputs, strict=True))
            embedded = model.embedding.weight[word]
            x = torch.cat([embedded, context])
            state = gru(x, state, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
            read_out = model.readout.weight @ torch.cat([state, context, embedded]) + model.readout.bias
            logits.append(model.head.weight @ torch.tanh(read_out) + model.head.bias)
            looked[number, t, : len(share)] = share.detach()
    equal_with_gradients(model(source, mask, target), torch.stack(logits).view(2, 5, 7), list(model.parameters()))
    torch.testing.assert_close(model.alignment(source, mask, target), looked, rtol=0, atol=1e-10)


def test_a_window_that_moves_on_is_what_the_decoder_looks_through(sentences):
    model, (source, mask, target) = random(AttentionSeq2Seq, attention="monotone"), sentences
    window, cell, logits = model.attention, model.rnn, []
    for tokens, real, words in zip(source, mask, target, strict=True):
        outputs, states = read(model.encoder, tokens[real], torch.zeros(2, dtype=torch.float64), gru)
        state, kappa = states[-1][0], torch.zeros(4, dtype=torch.float64)
        for word in words:
            alpha, beta, delta = torch.exp(window.step.weight @ state + window.step.bias).chunk(3)
            kappa = kappa + delta
            context = sum((alpha * torch.exp(-beta * (kappa - s) ** 2)).sum() * output for s, output in enumerate(outputs))
            embedded = model.embedding.weight[word]
            x = torch.cat([embedded, context])
            state = gru(x, state, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
            read_out = model.readout.weight @ torch.cat([state, context, embedded]) + model.readout.bias
            logits.append(model.head.weight @ torch.tanh(read_out) + model.head.bias)
    equal_with_gradients(model(source, mask, target), torch.stack(logits).view(2, 5, 7), list(model.parameters()))


def test_a_decoder_that_copies_writes_words_that_its_vocabulary_has_not():
    model = AttentionSeq2Seq(9, 9, 3, 4, copies=True, strangers=2).double().eval()
    source, mask, target = torch.tensor([[5, 8, 4]]), torch.ones(1, 3, dtype=torch.bool), torch.tensor([[1, 8, 7]])
    logits = model(source, mask, target)
    assert torch.allclose(logits.exp().sum(-1), torch.ones(1, 3, dtype=torch.float64))
    looked = model.alignment(source, mask, target)
    gate = torch.sigmoid(model.copying.gate(model._steps(target, model.encode(source, mask))[0]))
    torch.testing.assert_close(logits.exp()[..., 8], (1 - gate[..., 0]) * looked[..., 1])  # it stands at place 1
    assert (logits[..., 7] < -80).all()  # and that nowhere
    unknown = torch.tensor([[5, UNK, 4]])
    torch.testing.assert_close(model.alignment(unknown, mask, target), looked)  # a stranger is read as an unknown word


def test_two_sides_may_share_one_embedding(tmp_path):
    size = SIZE | {"target_vocab_size": SIZE["source_vocab_size"], "copies": True, "strangers": 2}
    model, apart = build(AttentionSeq2Seq, **size, shared=True).eval(), build(AttentionSeq2Seq, **size).eval()
    apart.load_state_dict(model.state_dict())
    source, mask, target = torch.randint(9, (2, 4)), torch.ones(2, 4, dtype=torch.bool), torch.randint(9, (2, 5))
    assert torch.equal(model(source, mask, target), apart(source, mask, target))
    model(source, mask, target).sum().backward()
    apart(source, mask, target).sum().backward()
    both = apart.embedding.weight.grad + apart.encoder.embedding.weight.grad
    torch.testing.assert_close(model.embedding.weight.grad, both)
    save(model, tmp_path)
    again = load(tmp_path)
    assert again.embedding is again.encoder.embedding
    assert torch.equal(again.eval()(source, mask, target), model(source, mask, target))


@pytest.mark.parametrize("arguments", [{"attention": "monotone"}, {"copies": True, "strangers": 2}])
def test_a_step_after_the_other_from_the_cache_says_what_all_at_once_say(arguments):
    size = SIZE | {"target_vocab_size": 9}
    model = AttentionSeq2Seq(**size, **arguments).double().eval()
    source, mask, target = torch.randint(9, (2, 4)), torch.arange(4) < torch.tensor([[4], [2]]), torch.randint(9, (6, 5))
    memory = model.encode(source, mask)
    cache = model.new_cache(memory, 3, 5)
    steps = [model.decode(target[:, t : t + 1], memory, cache) for t in range(5)]
    torch.testing.assert_close(torch.cat(steps, 1), model.decode(target, memory), rtol=0, atol=1e-10)
    alone = model(source[1:, :2], mask[1:, :2], target[5:])
    torch.testing.assert_close(model.decode(target, memory)[5:], alone, rtol=0, atol=1e-10)


def test_dropout_is_for_training(sentences):
    for make in (Seq2Seq, AttentionSeq2Seq):
        model = random(make, dropout=0.5)
        assert torch.equal(model(*sentences), model(*sentences))
        model.train()
        assert not torch.equal(model(*sentences), model(*sentences))


def test_what_no_network_is_made_of_is_refused_by_name():
    with pytest.raises(ValueError, match="cell='elman', hidden_dim=4: expected gru or lstm, and an even number"):
        Seq2Seq(**SIZE, cell="elman")
    with pytest.raises(ValueError, match="attention='dot': expected additive or monotone"):
        AttentionSeq2Seq(**SIZE, attention="dot")
    with pytest.raises(ValueError, match="expected additive, and one vocabulary, not 9 and 7 tokens"):
        AttentionSeq2Seq(**SIZE, copies=True)
    with pytest.raises(ValueError, match="shared=True: the vocabularies have 9 and 7 tokens"):
        AttentionSeq2Seq(**SIZE, shared=True)
    with pytest.raises(ValueError, match="strangers=1: expected copies=True"):
        AttentionSeq2Seq(**SIZE, strangers=1)
    with pytest.raises(ValueError, match="hidden_dim=5"):
        AttentionSeq2Seq(**{**SIZE, "hidden_dim": 5})
