"""The network that plays: its formula, what AlphaGo's has, and that it foretells moves of games that it has not seen."""

import pytest
import torch
from definitions import equal_with_gradients
from torch import nn
from torch.nn.functional import pad

from thalweg.build import adapt, build
from thalweg.data.gomoku import games, symmetries
from thalweg.data.streams import TensorStream
from thalweg.layers.standardize import standardize
from thalweg.models.vision.board import alphago_policy, board_net
from thalweg.tasks.next_move import NextMove
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import adamw
from thalweg.training.schedules import linear, warmup


def test_it_is_convolutions_at_the_extent_of_the_board_and_a_bias_a_point():
    model = board_net(2, 3, 3, size=5).double()
    nn.init.normal_(model.bias)
    image = torch.randn(1, 2, 5, 5, dtype=torch.float64)

    def convolved(x, layer, reach):
        padded = pad(x, (reach,) * 4)
        size = 2 * reach + 1
        return torch.stack([
            torch.stack([
                torch.stack([(padded[:, i : i + size, j : j + size] * w).sum() + b for j in range(5)]) for i in range(5)
            ])
            for w, b in zip(layer.weight, layer.bias, strict=True)
        ])  # fmt: skip

    x = convolved(image[0], model.stem[0], 2).clamp(min=0)
    x = convolved(x, model.blocks[0][0], 1).clamp(min=0)
    naive = (x * model.head.weight[0]).sum(0).flatten() + model.bias
    equal_with_gradients(model(image)[0], naive, list(model.parameters()))


def test_stones_moved_together_are_answered_alike_away_from_the_border():
    model = board_net(2, 4, 3, size=15).double()
    image = torch.zeros(1, 2, 15, 15, dtype=torch.float64)
    image[:, :, 6:8, 6:8] = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    here, there = (model(x).view(15, 15) for x in (image, image.roll((1, -1), (2, 3))))
    torch.testing.assert_close(there.roll((-1, 1), (0, 1))[4:10, 4:10], here[4:10, 4:10], rtol=1e-10, atol=1e-10)


def test_the_policy_of_alphago_has_thirteen_convolutions_and_no_pooling():
    with torch.device("meta"):
        model = alphago_policy()
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == 13
    assert [layer.kernel_size[0] for layer in layers] == [5, *[3] * 11, 1]
    assert {type(module) for module in model.modules() if not list(module.children())} == {nn.Conv2d, nn.ReLU}
    assert model(torch.zeros(1, 48, 19, 19, device="meta")).shape == (1, 361)
    with pytest.raises(ValueError, match="num_layers=1: expected at least 2"):
        board_net(num_layers=1)


def test_it_foretells_the_moves_of_games_that_it_has_not_seen():
    size = 7
    model = adapt(build(board_net, width=24, num_layers=4, size=size), standardize, mean=[0, 0, 0], deviation=[1, 1, 1],
                  size=[size, size])  # fmt: skip
    task = build(NextMove, model=model, size=size)
    train = TensorStream(games(250, size, 0), 128, shuffle=True, augment=[symmetries()])
    training = Training(Experiment(task=task, train=train, steps=300, optimizer=adamw(4e-3), schedule=warmup(0.1, linear())),
                        device="cpu", precision="fp32")  # fmt: skip
    for _ in training:
        pass
    task.eval()
    held_out = games(30, size, 1)
    with torch.no_grad():
        task.evaluate(held_out)
    empty = (held_out["image"][:, 2] > 0).flatten(1).sum(1)
    chance = float((1 / empty).mean())
    found = {name: float(value) for name, value in task.metrics.compute().items()}
    assert chance < 0.06
    assert found["accuracy"] > 5 * chance
    assert found["top_5"] > 0.5
    (figure,) = task.figures(held_out).values()
    assert len(figure.axes) == 12
    answer = task.predict({"text": ["......./.xxxx../......./....o../..oo.../......./......."]})
    assert not set(answer["label"][0]) & {"B6", "C6", "D6", "E6", "E4", "C3", "D3"}  # these are taken
    assert answer["probability"].shape == (1, 5)
    taken = task.predict({"text": ["xoxoxox/oxoxoxo/xoxoxox/oxoxoxo/xoxoxox/oxoxoxo/xoxoxo."]}, top_k=1)
    assert taken["label"] == [["G1"]]
    with pytest.raises(ValueError, match="board: 3 points a side, expected 7"):
        task.predict({"text": ["x.o/.../..x"]})
    with pytest.raises(ValueError, match="board: it is full"):
        task.predict({"text": ["/".join(["xoxoxox"] * 7)]})
    with pytest.raises(ValueError, match="top_k=0: expected at least 1"):
        task.predict({"text": ["/".join(["......."] * 7)]}, top_k=0)
