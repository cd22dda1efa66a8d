"""Neural n-gram models: their formulas by loops, what they see, and trees in place of the sum over all words."""

import pytest
import torch
from definitions import equal_with_gradients
from torch.testing import assert_close

from thalweg.models.language.nnlm import LBL, NNLM

COUNTS = [9, 5, 3, 2, 1, 1, 1]
TOKENS = torch.tensor([[1, 4, 0, 6, 2], [3, 3, 5, 1, 0]])


def model_of(kind, **arguments):
    model = kind(7, order=4, embed_dim=3, **arguments).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def seen(model, row, place):
    """The vectors of the three words up to a place, zeros where there is none."""
    zero = torch.zeros(3, dtype=torch.float64)
    return [model.embedding.weight[row[i]] if i >= 0 else zero for i in range(place - 2, place + 1)]


def test_the_nnlm_is_its_formula_in_values_and_gradients():
    model, naive = model_of(NNLM, hidden_dim=4), []
    for row in TOKENS:
        for place in range(5):
            states = sum(model.context.weight[:, :, i] @ x for i, x in enumerate(seen(model, row, place)))
            naive.append(model.head.weight @ torch.tanh(states + model.context.bias) + model.head.bias)
    equal_with_gradients(model.head(model.states(TOKENS)), torch.stack(naive).view(2, 5, 7), [*model.parameters()])


def test_the_lbl_is_its_formula_with_one_vector_a_word():
    model, naive = model_of(LBL), []
    for row in TOKENS:
        for place in range(5):
            expected = sum(model.context.weight[:, :, i] @ x for i, x in enumerate(seen(model, row, place)))
            naive.append(model.embedding.weight @ expected + model.head.bias)
    equal_with_gradients(model.head(model.states(TOKENS)), torch.stack(naive).view(2, 5, 7), [*model.parameters()])
    assert model.head.weight is model.embedding.weight
    assert sum(parameter.numel() for parameter in model.parameters()) == 7 * 3 + 3 * 3 * 3 + 7


@pytest.mark.parametrize("kind", [NNLM, LBL])
@pytest.mark.parametrize("counts", [None, COUNTS])
def test_probabilities_sum_to_one_and_come_from_the_last_words_alone(kind, counts):
    model = model_of(kind, counts=counts)
    said = model(TOKENS)
    assert_close(said.exp().sum(-1).double(), torch.ones(2, 5, dtype=torch.float64), rtol=0, atol=1e-6)
    for place in range(5):
        changed = TOKENS.clone()
        changed[:, place] = (changed[:, place] + 1) % 7
        differs = (model(changed) != said).any(-1).any(0).tolist()
        assert differs == [place <= other <= place + 2 for other in range(5)]
    target = torch.randint(7, (2, 5))
    told = said.gather(-1, target[..., None])[..., 0]
    assert_close(model.surprise(TOKENS, target), -told.float(), rtol=1e-5, atol=1e-6)


def test_a_tree_learns_from_the_turns_alone():
    flat, tree = model_of(LBL), model_of(LBL, counts=COUNTS)
    read = []
    tree.head.nodes.register_forward_hook(lambda module, inputs, output: read.append(output.shape[-2]))
    tree.surprise(TOKENS, TOKENS)
    assert read == [tree.head.path.shape[1]]
    assert read[0] < flat.head.out_features
    with pytest.raises(ValueError, match="order=1"):
        NNLM(7, order=1)
    with pytest.raises(ValueError, match="3 counts: expected at least 2, and vocab_size=7"):
        LBL(7, counts=[1, 2, 3])
