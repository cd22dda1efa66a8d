"""ELMo: two directions that never meet, and layers that are mixed."""

import torch
from definitions import equal_with_gradients, numbers
from torch.testing import assert_close

from thalweg.build import build
from thalweg.data.streams import padded
from thalweg.layers.layer_mix import LayerMix
from thalweg.models.language.elmo import ELMo
from thalweg.tasks.both_ways import BothWays

BATCH = padded({"tokens": [torch.tensor([4, 2, 7, 1, 3]), torch.tensor([5, 6, 8])]})


def model() -> ELMo:
    made = ELMo(9, embed_dim=3, hidden_dim=5).double().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return made


def naive(rnns, words):
    """What each layer says of words in the order of reading."""
    layers = [words]
    for number, rnn in enumerate(rnns):
        h, c, said = torch.zeros(3, dtype=torch.float64), torch.zeros(5, dtype=torch.float64), []
        for x in layers[-1]:
            gates = rnn.weight_ih_l0 @ x + rnn.bias_ih_l0 + rnn.weight_hh_l0 @ h + rnn.bias_hh_l0
            i, f, g, o = gates.split(5)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = rnn.weight_hr_l0 @ (o.sigmoid() * c.tanh())
            said.append(h + x if number else h)
        layers.append(said)
    return layers


def test_its_layers_are_their_formula_whatever_is_padding():
    made = model()
    found = made.layers(**BATCH)
    assert len(found) == made.num_states == 3
    ours, expected = [], []
    for row, length in enumerate((5, 3)):
        words = [made.embedding.weight[token] for token in BATCH["tokens"][row, :length]]
        before, after = naive(made.forward_rnns, words), naive(made.backward_rnns, words[::-1])
        for layer, (f, b) in enumerate(zip(before, after, strict=True)):
            ours.append(found[layer][row, :length])
            expected.append(torch.stack([torch.cat(pair) for pair in zip(f, b[::-1], strict=True)]))
    learned = [parameter for name, parameter in made.named_parameters() if name != "bias"]
    equal_with_gradients(torch.cat(ours), torch.cat(expected), learned)


def test_the_loss_is_of_each_word_by_those_before_and_by_those_after():
    torch.manual_seed(0)
    task = build(BothWays, model=build(ELMo, vocab_size=9, embed_dim=3, hidden_dim=5, dropout=0.0), words="a b c d e").double()
    task.model.load_state_dict(model().state_dict())
    total, terms = 0.0, 0
    for tokens in ([4, 2, 7, 1, 3], [5, 6, 8]):
        words = [task.model.embedding.weight[token] for token in tokens]
        for rnns, order in ((task.model.forward_rnns, 1), (task.model.backward_rnns, -1)):
            said = naive(rnns, words[::order])[-1]
            for state, following in zip(said, tokens[::order][1:], strict=False):
                total -= (task.model.embedding.weight @ state + task.model.bias).log_softmax(0)[following]
                terms += 1
    loss, count = task.loss(BATCH)
    assert count == terms == 12
    learned = [*task.model.parameters()]  # a loss is of single precision, whatever the model's is
    assert_close(loss.double(), total, rtol=1e-6, atol=0)
    for one, other in zip(torch.autograd.grad(loss, learned), torch.autograd.grad(total, learned), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_two_directions_never_meet():
    made, tokens = model(), BATCH["tokens"][:1]
    embedded = made.embedding(tokens).detach().requires_grad_()
    made.embedding.forward = lambda _: embedded
    before, after = made(tokens, BATCH["mask"][:1])
    for said, seen in ((before, [True, True, True, False, False]), (after, [False, False, True, True, True])):
        (gradient,) = torch.autograd.grad(said[0, 2].square().sum(), embedded, retain_graph=True)
        assert gradient[0].any(1).tolist() == seen


def test_a_mix_is_a_weighted_mean_of_layers_that_is_learned():
    layers, mix = [numbers(2, 3) for _ in range(3)], LayerMix(3).double()
    torch.nn.init.normal_(mix.weight)
    weight = mix.weight.exp() / mix.weight.exp().sum()
    alike = [(x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt() for x in layers]
    expected = mix.scale * (weight[0] * alike[0] + weight[1] * alike[1] + weight[2] * alike[2])
    equal_with_gradients(mix(layers), expected, [*layers, mix.weight, mix.scale])
    one = torch.tensor([-2.0, 0.0, 2.0])
    assert_close(LayerMix(2)([one, -5 * one]), torch.zeros(3), rtol=0, atol=1e-4)  # neither is louder
