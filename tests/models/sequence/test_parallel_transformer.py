"""Parallel decoders: what a place sees, what it does not, and heads that read what they must."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from thalweg.data.pairs import EOS, PAD
from thalweg.models.sequence.parallel import (
    FertilityTransformer,
    InsertionTransformer,
    Kermit,
    LengthTransformer,
    LevenshteinTransformer,
    ParallelTransformer,
    fenced,
    gaps,
)
from thalweg.models.sequence.transformer import Transformer

SIZES = {"source_vocab_size": 11, "target_vocab_size": 9, "embed_dim": 8, "num_layers": 2, "num_heads": 2}
NETWORK = {
    "length": lambda network: LengthTransformer(network, 5),
    "insertion": InsertionTransformer,
    "plain": lambda network: network,
}


def model_of(make):
    model = make(ParallelTransformer(**SIZES)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def pair():
    source, target = torch.randint(3, 11, (3, 6)), torch.randint(3, 9, (3, 5))
    return source, torch.arange(6) < torch.tensor([[6], [3], [5]]), target, torch.arange(5) < torch.tensor([[5], [2], [4]])


def test_a_place_sees_all_others_and_no_padding():
    model, (source, mask, target, real) = model_of(NETWORK["plain"]), pair()
    logits = model(source, mask, target, real)
    for place in (0, 4):
        other = target.clone()
        other[0, place] = 3 + (other[0, place] - 2) % 6
        moved = (model(source, mask, other, real) - logits).abs().amax(2)
        assert (moved[0] > 1e-9).all()  # before it and after it
        assert not moved[1:].any()
    spoilt = model(torch.where(mask, source, 4), mask, torch.where(real, target, 5), real)
    assert_close(spoilt[real], logits[real])
    other = source.clone()
    other[0, 3] = 3 + (other[0, 3] - 2) % 8
    assert ((model(other, mask, target, real) - logits)[0].abs().amax(1) > 1e-9).all()


def test_with_one_word_it_is_the_transformer():
    """Nothing before it, nothing after it: causal or not makes no difference."""
    ours = model_of(NETWORK["plain"])
    theirs = Transformer(**SIZES).double().eval()
    theirs.load_state_dict(ours.state_dict())
    source, mask, target, _ = pair()
    assert_close(ours(source, mask, target[:, :1], target[:, :1] > 0), theirs(source, mask, target[:, :1]))


def test_targets_of_a_source_stand_side_by_side():
    model, (source, mask, target, real) = model_of(NETWORK["plain"]), pair()
    other = torch.flip(target, [1])
    memory = model.encode(source, mask)
    both = model.words(model.decode(*(torch.stack(two, 1).flatten(0, 1) for two in ((target, other), (real, real))), memory))
    assert_close(both[0::2], model(source, mask, target, real))
    assert_close(both[1::2], model(source, mask, other, real))


def test_the_length_is_read_from_the_source_alone():
    model, (source, mask, target, real) = model_of(NETWORK["length"]), pair()
    words, length = model(source, mask, target, real)
    assert words.shape == (3, 5, 9)
    assert length.shape == (3, 6)
    memory = model.network.encode(source, mask)
    summed = torch.stack([memory.states[row, : mask[row].sum()].sum(0) for row in range(3)])
    assert_close(length, model.length(summed / 8**0.5))
    assert_close(model(torch.where(mask, source, 7), mask, target.flip(1), real)[1], length)


def test_by_fertility_the_decoder_reads_the_source_repeated():
    model, (source, mask, _, _) = model_of(FertilityTransformer), pair()
    fertility = torch.tensor([[2, 0, 1, 0, 0, 1], [0, 3, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    logits, real, said = model(source, mask, fertility)
    assert real.sum(1).tolist() == [4, 3, 5]
    assert said.shape == (3, 6, 5)
    network, copies = model.network, source[0, [0, 0, 2, 5]][None]
    memory = network.encode(source[:1], mask[:1])
    network.target_embedding, words = network.source_embedding, network.target_embedding
    states = network.decode(copies, copies > 0, memory)  # the same as if the target's words were those of the source
    assert_close(states @ words.weight.T, logits[:1, :4])


def test_words_are_fenced_and_every_gap_lies_between_two_places():
    tokens, mask = torch.tensor([[5, 6, 7], [8, PAD, PAD], [PAD, PAD, PAD]]), torch.arange(3) < torch.tensor([[3], [1], [0]])
    wider, real = fenced(tokens, mask)
    assert wider.tolist() == [[EOS, 5, 6, 7, EOS], [EOS, 8, EOS, PAD, PAD], [EOS, EOS, PAD, PAD, PAD]]
    assert real.sum(1).tolist() == [5, 3, 2]
    states = torch.randn(2, 4, 3)
    found = gaps(states)
    assert found.shape == (2, 3, 6)
    assert torch.equal(found[:, 1], torch.cat([states[:, 1], states[:, 2]], 1))


def test_a_gap_knows_what_stands_on_its_sides_and_padding_is_no_side():
    model, (source, mask, target, real) = model_of(NETWORK["insertion"]), pair()
    logits = model(source, mask, target, real)
    assert logits.shape == (3, 6, 9)
    spoilt = model(source, mask, torch.where(real, target, 5), real)
    counted = torch.arange(6) <= real.sum(1, keepdim=True)
    assert_close(spoilt[counted], logits[counted])
    nothing = torch.empty(3, 0, dtype=torch.long)
    assert model(source, mask, nothing, nothing > 0).shape == (3, 1, 9)


def test_edits_are_said_of_words_and_of_gaps():
    model, (source, mask, target, real) = model_of(LevenshteinTransformer), pair()
    memory = model.network.encode(source, mask)
    assert model.wrong(target, real, memory).shape == (3, 5)
    assert model.missing(target, real, memory).shape == (3, 6, 17)
    assert model.words(target, real, memory).shape == (3, 5, 9)


def test_either_side_reads_the_other_and_no_padding():
    model = Kermit(**SIZES).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    source, mask, target, real = pair()
    said = model(source, mask, target, real)
    assert [tuple(side.shape) for side in said] == [(3, 7, 11), (3, 6, 9)]
    spoilt = model(torch.where(mask, source, 4), mask, torch.where(real, target, 5), real)
    for side, part, filled in zip(said, spoilt, (mask, real), strict=True):
        counted = torch.arange(side.shape[1]) <= filled.sum(1, keepdim=True)
        assert_close(part[counted], side[counted])
    other = source.clone()
    other[0, 0] = 3 + (other[0, 0] - 2) % 8
    assert ((model(other, mask, target, real)[1] - said[1])[0].abs().amax(1) > 1e-9).all()


@pytest.mark.parametrize("make", [ParallelTransformer, Kermit])
def test_heads_must_share_the_width(make):
    with pytest.raises(ValueError, match="embed_dim=9: expected a multiple of num_heads=2"):
        make(**{**SIZES, "embed_dim": 9})
