"""Pointing at the corners of convex hulls: the hull, the network, and sets that are larger than those it learned from."""

import math

import pytest
import torch
from definitions import EXACT
from torch.testing import assert_close

from thalweg.build import build, load, save
from thalweg.data.geometry import convex_hull, hulls
from thalweg.data.streams import TensorStream
from thalweg.models.sequence.pointer import PointerNetwork
from thalweg.tasks.pointing import Pointing
from thalweg.training import Experiment
from thalweg.training.loop import Training, evaluate
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear


def test_a_hull_turns_left_at_every_corner_and_holds_every_point():
    for seed in range(50):
        points = torch.rand(3 + seed % 9, 2, generator=torch.Generator().manual_seed(seed)).double()
        hull = convex_hull(points)
        assert hull[0] == min(hull)
        for place, corner in enumerate(hull):
            a, b = points[corner], points[hull[(place + 1) % len(hull)]]
            left = (b[0] - a[0]) * (points[:, 1] - a[1]) - (b[1] - a[1]) * (points[:, 0] - a[0])
            assert (left >= -1e-12).all()
            assert sorted(left.argsort()[:2].tolist()) == sorted([corner, hull[(place + 1) % len(hull)]])


def test_points_on_a_side_are_no_corners():
    assert convex_hull(torch.tensor([[0.0, 0], [1, 0], [2, 0], [2, 2], [1, 1]])) == [0, 2, 3]


def test_sets_of_points_come_from_left_to_right_with_their_hulls_and_padding():
    batch = hulls(200, 3, 6, seed=4)
    assert set(batch["mask"].sum(1).tolist()) == {3, 4, 5, 6}
    for points, mask, target in zip(batch["points"], batch["mask"], batch["target"], strict=True):
        real = points[mask]
        assert torch.equal(real[:, 0], real[:, 0].sort().values)
        places = target[target >= 0].tolist()
        assert places == [1 + place for place in convex_hull(real)] + [0]
        assert places[0] == 1
    with pytest.raises(ValueError, match="least=2, most=6"):
        hulls(1, 2, 6, 0)


def test_where_it_points_is_a_softmax_over_what_was_read():
    model = PointerNetwork(2, 4).double()
    batch = hulls(3, 3, 5, seed=0)
    points, mask = batch["points"].double(), batch["mask"]
    target = torch.tensor([[0, 1, 3]] * 3)
    logits = model(points, mask, target)
    assert logits.shape == (3, 3, 6)
    assert torch.equal(logits.isfinite(), torch.cat([torch.ones(3, 1, dtype=torch.bool), mask], 1)[:, None].expand(3, 3, 6))
    for row in range(3):
        count = int(mask[row].sum())
        seen, state = model.encoder(points[row : row + 1, :count])
        read = torch.stack([model.start, points[row, 0], points[row, 2]])[None]
        steps, _ = model.decoder(read, state)
        for t in range(3):
            for place in range(count + 1):
                e = model.end if place == 0 else seen[0, place - 1]
                v, key, query = model.score.weight[0], model.key.weight, model.query.weight
                assert_close(logits[row, t, place], v @ (key @ e + query @ steps[0, t]).tanh(), **EXACT)


def test_what_is_written_step_by_step_is_what_is_most_probable_after_it():
    model = PointerNetwork(2, 8)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    batch = hulls(20, 3, 7, seed=1)
    written = model.write(batch["points"], batch["mask"])
    before = torch.cat([torch.zeros_like(written[:, :1]), written[:, :-1]], 1)
    again = model(batch["points"], batch["mask"], before).argmax(-1)
    until = (before == 0).cumsum(1) <= 1
    assert torch.equal(written[until], again[until])
    assert not written[~until].any()


@pytest.mark.slow
def test_hulls_are_learned_and_found_of_more_points_than_were_seen(tmp_path):
    torch.manual_seed(0)
    task = build(Pointing, model=build(PointerNetwork, hidden_dim=96))
    train, valid, more = (TensorStream(hulls(n, *sizes, seed=s), 128, shuffle=s == 1)
                          for s, n, sizes in ((1, 20_000, (4, 6)), (2, 500, (4, 6)), (3, 500, (8, 8))))  # fmt: skip
    training = Training(Experiment(task=task, train=train, steps=1500, clip=1.0, optimizer=adamw(3e-3), schedule=linear()),
                        device="cpu")  # fmt: skip
    for _ in training:
        pass
    assert dict(evaluate(training, valid))["whole"] > 0.85
    assert dict(evaluate(training, more))["whole"] > 0.4  # of guesses: one in thousands
    save(task, tmp_path / "model")
    square = {"points": torch.tensor([[0.0, 0.0, 0.5, 0.5, 0.1, 0.9, 0.9, 0.1, 1.0, 1.0]])}
    assert load(tmp_path / "model").eval().predict(square) == task.eval().predict(square)
    with pytest.raises(ValueError, match="points: 3 numbers"):
        task.predict({"points": torch.zeros(1, 3)})
    assert math.isfinite(dict(evaluate(training, more))["loss"])
