"""Classifiers of texts against their formulas, whatever is padding."""

import pytest
import torch
from definitions import EXACT, equal_with_gradients, numbers
from torch.nn.functional import conv2d, pad
from torch.testing import assert_close

from thalweg.models.language.birnn import BiRNN
from thalweg.models.language.textcnn import TextCNN, max_over_time
from thalweg.models.language.word_counts import WordCounts

TOKENS = torch.tensor([[4, 2, 7, 1, 3, 3], [5, 6, 0, 0, 0, 0], [8, 0, 0, 0, 0, 0]])
LENGTH = [6, 2, 1]
MASK = torch.arange(6) < torch.tensor(LENGTH)[:, None]


@pytest.mark.parametrize("static", [False, True])
def test_a_textcnn_is_its_formula(static):
    model = TextCNN(9, 3, embed_dim=4, kernel_sizes=(2, 3), num_channels=5, static=static).double().eval()
    naive = []
    for tokens, length in zip(TOKENS, LENGTH, strict=True):
        tables = [model.embedding, *([model.static_embedding] if static else [])]
        words = [torch.cat([table.weight[token] for table in tables]) for token in tokens[:length]]
        strongest = []
        for conv in model.convs:
            size = conv.kernel_size[0]
            around = [torch.zeros_like(words[0])] * (size - 1)
            text = [*around, *words, *around]
            answers = [
                (conv.weight * torch.stack(text[t : t + size], 1)).sum((1, 2)) + conv.bias for t in range(len(text) - size + 1)
            ]
            strongest.append(torch.stack(answers).clamp(min=0).amax(0))
        naive.append(model.head.weight @ torch.cat(strongest) + model.head.bias)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(learned) == 7
    equal_with_gradients(model(TOKENS, MASK), torch.stack(naive), learned)


def test_convolution_in_time_with_many_channels_is_convolution_of_an_image_with_one():
    x, model = numbers(2, 6, 9), TextCNN(9, 3, embed_dim=6, kernel_sizes=(4,), num_channels=5).double()
    conv = model.convs[0]
    image = pad(x, (3, 3))[:, None]  # as high as the embedding, as wide as the text
    equal_with_gradients(conv(x), conv2d(image, conv.weight[:, None], conv.bias)[:, :, 0], [x, conv.weight, conv.bias])


def test_the_maximum_over_time_takes_channels_of_any_number_of_places():
    x = numbers(3, 4, 6)
    naive = torch.stack([row[:, :length].amax(1) for row, length in zip(x, LENGTH, strict=True)])
    equal_with_gradients(max_over_time(x, MASK), naive, [x])
    later = x.detach().masked_fill(~MASK[:, None], 1e3)
    assert_close(max_over_time(later, MASK), naive.detach(), **EXACT)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_birnn_joins_the_states_of_both_directions_at_both_ends(num_layers):
    model = BiRNN(9, 3, embed_dim=4, hidden_dim=5, num_layers=num_layers).double().eval()
    rnn, naive = model.rnn, []

    def read(words, layer, direction):
        name = f"l{layer}{'_reverse' if direction else ''}"
        h = c = torch.zeros(5, dtype=torch.float64)
        states = []
        for x in words[::-1] if direction else words:
            gates = getattr(rnn, f"weight_ih_{name}") @ x + getattr(rnn, f"bias_ih_{name}")
            gates = gates + getattr(rnn, f"weight_hh_{name}") @ h + getattr(rnn, f"bias_hh_{name}")
            i, f, g, o = gates.split(5)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return states[::-1] if direction else states

    for tokens, length in zip(TOKENS, LENGTH, strict=True):
        words = [model.embedding.weight[token] for token in tokens[:length]]
        for layer in range(num_layers):
            words = [torch.cat(pair) for pair in zip(read(words, layer, 0), read(words, layer, 1), strict=True)]
        naive.append(model.head.weight @ torch.cat([words[0], words[-1]]) + model.head.bias)
    equal_with_gradients(model(TOKENS, MASK), torch.stack(naive), [*model.parameters()])


def test_counts_of_words_are_softmax_regression_on_them_in_whatever_order():
    model = WordCounts(9, 3).double()
    torch.nn.init.normal_(model.embedding.weight)
    counts = torch.zeros(3, 9, dtype=torch.float64)
    for row, (tokens, length) in enumerate(zip(TOKENS.tolist(), LENGTH, strict=True)):
        for token in tokens[:length]:
            counts[row, token] += 1
    equal_with_gradients(model(TOKENS, MASK), counts @ model.embedding.weight + model.bias, [*model.parameters()])
    assert_close(model(TOKENS[:1].flip(1), MASK[:1]), model(TOKENS[:1], MASK[:1]), **EXACT)
