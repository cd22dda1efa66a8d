"""One Transformer, every way to attend: what each sees, that padding does not count, and that each learns."""

import pytest
import torch
from torch.testing import assert_close

from thalweg.models.sequence.long_reader import BOTH_SIDES, WAYS, LongReader

BACKWARD = [way for way in WAYS if way not in BOTH_SIDES]


def reader(way, num_classes, **arguments):
    sizes = {"embed_dim": 8, "num_layers": 2, "num_heads": 2, "window": 4, **arguments}
    return LongReader(6, 16, num_classes, way, **sizes).double().eval()


@pytest.mark.parametrize("way", WAYS)
def test_a_class_does_not_depend_on_what_stands_where_the_mask_hides_it(way):
    model, tokens = reader(way, 3), torch.randint(6, (2, 16))
    mask = torch.arange(16) < torch.tensor([[11], [16]])
    answers = []
    for hidden in (tokens, torch.where(mask, tokens, (tokens + 1) % 6)):
        torch.manual_seed(1)  # of the rotations by which places are hashed
        answers.append(model(hidden, mask))
    assert_close(*answers, rtol=0, atol=1e-10)
    torch.manual_seed(1)
    assert not torch.allclose(model((tokens + 1) % 6, mask), answers[0])


@pytest.mark.parametrize("way", BACKWARD)
def test_without_classes_a_place_sees_none_after_it(way):
    model, tokens = reader(way, None), torch.randint(6, (2, 16))
    other = tokens.clone()
    other[:, 9:] = (other[:, 9:] + 1) % 6
    logits = []
    for text in (tokens, other):
        torch.manual_seed(1)
        logits.append(model(text))
    if way != "reformer":  # there others move the chunks into which a bucket is cut, though none of them is read
        assert_close(logits[0][:, :9], logits[1][:, :9], rtol=0, atol=1e-10)
    assert logits[0].shape == (2, 16, 6)


def test_what_cannot_look_backwards_alone_is_refused_without_classes():
    for way in BOTH_SIDES:
        with pytest.raises(ValueError, match=f"way='{way}'"):
            reader(way, None)
        assert reader(way, 2)(torch.zeros(1, 16, dtype=torch.long)).shape == (1, 2)
    with pytest.raises(ValueError, match="expected one of full, window"):
        reader("all", 2)
    with pytest.raises(ValueError, match="embed_dim=8"):
        reader("full", 2, num_heads=3)
