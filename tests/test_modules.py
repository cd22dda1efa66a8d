"""The module system as D2L chapter 5 describes it: torch's own, held to what is said about it, and what builds on it."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from thalweg import figures
from thalweg.build import build
from thalweg.data.streams import TensorStream
from thalweg.models.classical.linear import softmax_regression
from thalweg.models.classical.mlp import mlp
from thalweg.models.vision.lenet import lenet
from thalweg.models.vision.resnet import resnet9
from thalweg.tasks.classification import Classification
from thalweg.training import Experiment, Training
from thalweg.training.optimisers import adamw

CLASSES = tuple("0123")


def stripes(count: int = 64) -> dict[str, Tensor]:
    """8x8 images of four kinds: bright in one of the quarters."""
    label = torch.arange(count) % 4
    image = torch.rand(count, 1, 8, 8) * 0.5
    for kind in range(4):
        image[label == kind, :, 4 * (kind // 2) :, 4 * (kind % 2) :][:, :, :4, :4] += 0.5
    return {"image": image, "label": label}


def experiment(model: nn.Module, steps: int = 60) -> Experiment:
    task = Classification(model, CLASSES)
    return Experiment(task=task, train=TensorStream(stripes(), 32, shuffle=True), steps=steps, optimizer=adamw(3e-2))


def losses(made: Experiment, **circumstances) -> list[float]:
    return [step.losses[""].item() for step in Training(made, precision="fp32", **circumstances)]


def test_hyperparameters_are_remembered_apart_from_parameters_and_these_are_counted():
    model = build(mlp, in_features=50, out_features=2, hidden_dims=[25, 10])  # LBDL Fig. 5.1
    ((name, hyperparameters),) = model.history
    assert name == "thalweg.models.classical.mlp:mlp"
    assert hyperparameters == {"in_features": 50, "out_features": 2, "hidden_dims": [25, 10]}
    assert sum(p.numel() for p in model.parameters()) == 50 * 25 + 25 + 25 * 10 + 10 + 10 * 2 + 2


@pytest.mark.parametrize(
    "model",
    [
        lambda: build(softmax_regression, image_size=8, num_classes=4),
        lambda: build(mlp, in_features=64, out_features=4),
        lambda: build(lenet, image_size=8, num_classes=4),
        lambda: build(resnet9, in_channels=1, num_classes=4, width=8),
    ],
)
def test_one_entry_point_trains_every_family_from_a_model_a_loss_and_an_optimiser(model):
    course = losses(experiment(model()))
    assert 0 < course[-1] < 0.7 * course[0]


class Scale(nn.Module):
    """A layer with a parameter."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class Centred(nn.Module):
    """A layer without one."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean()


class Nested(nn.Module):
    """Blocks of blocks in a list, a dict and an attribute."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(3, 3), Centred(), Scale()) for _ in range(2))
        self.by_name = nn.ModuleDict({"last": nn.Linear(3, 1)})

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.by_name["last"](x)


def test_parameters_of_nested_blocks_are_found_and_their_state_comes_back():
    model = Nested()
    assert [name for name, _ in model.named_parameters()] == [
        "blocks.0.0.weight", "blocks.0.0.bias", "blocks.0.2.weight",
        "blocks.1.0.weight", "blocks.1.0.bias", "blocks.1.2.weight",
        "by_name.last.weight", "by_name.last.bias",
    ]  # fmt: skip
    other, x = Nested(), torch.rand(4, 3)
    assert not torch.equal(model(x), other(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(x), other(x))


def test_parameters_are_read_replaced_and_drawn_by_their_path():
    model = build(lenet)
    path = "stages.0.0.weight"
    assert model.get_parameter(path).shape == (32, 1, 5, 5)
    drawn = figures.filters(model.get_parameter(path))
    assert len(drawn.axes) == 32
    layer = model.get_submodule("stages.0.0")
    layer.weight = nn.Parameter(torch.zeros(32, 1, 5, 5))
    assert not model.get_parameter(path).any()
    assert not model.stages[0][0](torch.rand(1, 1, 28, 28)).any()


def test_tied_layers_hold_one_tensor_and_their_gradients_add_up():
    shared = nn.Linear(4, 4).double()
    network = nn.Sequential(shared, nn.Tanh(), shared)
    assert len(list(network.parameters())) == 2
    x = torch.rand(3, 4, dtype=torch.float64)
    network(x).square().sum().backward()
    first, second = (nn.Linear(4, 4).double() for _ in range(2))
    first.load_state_dict(shared.state_dict())
    second.load_state_dict(shared.state_dict())
    nn.Sequential(first, nn.Tanh(), second)(x).square().sum().backward()
    assert_close(shared.weight.grad, first.weight.grad + second.weight.grad, rtol=0, atol=1e-12)
    with torch.no_grad():
        network[0].weight[0, 0] = 100.0
    assert network[2].weight[0, 0] == 100.0


@pytest.mark.parametrize(
    ("scheme", "options", "deviation"),
    [
        ("normal_", {"std": 0.01}, 0.01),
        ("uniform_", {"a": -0.3, "b": 0.3}, 0.3 / 3**0.5),
        ("xavier_normal_", {}, (2 / (400 + 600)) ** 0.5),
        ("xavier_uniform_", {}, (2 / (400 + 600)) ** 0.5),
        ("kaiming_normal_", {}, (2 / 400) ** 0.5),
        ("kaiming_uniform_", {"nonlinearity": "relu"}, (2 / 400) ** 0.5),
        ("constant_", {"val": 0.5}, 0.0),
    ],
)
def test_any_network_is_initialised_anew_by_the_name_of_a_scheme(scheme, options, deviation):
    network = nn.Sequential(nn.Linear(400, 600), nn.ReLU(), nn.Sequential(nn.Linear(400, 600)))

    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            getattr(nn.init, scheme)(module.weight, **options)
            nn.init.zeros_(module.bias)

    for layer in (m for m in network.apply(initialise).modules() if isinstance(m, nn.Linear)):
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.02)
        assert layer.weight.mean().item() == pytest.approx(options.get("val", 0), abs=5 * deviation / 240_000**0.5 + 1e-7)
        assert not layer.bias.any()


def test_a_network_without_input_sizes_is_built_by_its_first_batch():
    network = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises((ValueError, RuntimeError), match="uninitialized"):
        network[0].weight.shape  # noqa: B018
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 10)
    assert network[0].weight.shape == (4, 3, 3, 3)
    assert network[3].weight.shape == (10, 4 * 6 * 6)
    with pytest.raises(RuntimeError, match="channels"):
        network(torch.rand(2, 1, 8, 8))


def test_layers_of_ones_own_train_inside_a_model():
    scale = Scale()
    course = losses(experiment(nn.Sequential(nn.Flatten(), Centred(), nn.Linear(64, 4), scale)))
    assert 0 < course[-1] < 0.7 * course[0]
    assert scale.weight != 2.0


def test_hooks_give_the_activations_of_any_layer():
    model, seen = build(lenet).eval(), {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    image = torch.rand(2, 1, 28, 28)
    logits = model(image)
    assert set(seen) == {name for name, _ in model.named_modules()} - {"stages"}  # a list is no layer
    assert seen["stages.0"].shape == (2, 32, 14, 14)
    assert torch.equal(seen["stages.1"], model.features(image)[1])
    assert torch.equal(seen[""], logits)


class Copies(TorchDispatchMode):
    """Counts what is carried from one device to another."""

    def __init__(self):
        super().__init__()
        self.routes: list[tuple[str, str]] = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        if isinstance(result, Tensor) and arguments and isinstance(arguments[0], Tensor):
            route = arguments[0].device.type, result.device.type
            if route[0] != route[1]:
                self.routes.append(route)
        return result


def test_a_step_carries_only_its_batch_to_the_device_and_nothing_back():
    """On the meta device, where reading a number back is an error, each step takes in two tensors: image and label."""
    model = build(lenet, image_size=8, num_classes=4)
    made = experiment(model, steps=3)
    made.optimizer = lambda module: torch.optim.SGD(module.parameters(), lr=0.1, foreach=False)
    made.task.metrics = nn.Identity()  # its counters are no concern of a step
    training = Training(made, device="meta", precision="fp32")
    with Copies() as copies:
        for step in training:
            assert step.losses[""].device.type == "meta"
    assert copies.routes == [("cpu", "meta")] * 2 * 3
    assert training.copies == 2 * 3
