"""Each basic model twice: with tensors and autograd alone, and as this house does it. Both must take the same course.

D2L 3.2-3.3, 3.6-3.7, 4.2-4.3, 8.5-8.6, 12.5-12.6
"""

from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.testing import assert_close

from thalweg.build import build
from thalweg.data.sources import digits, fashion_mnist
from thalweg.data.streams import TensorStream
from thalweg.models.classical.linear import linear_regression, softmax_regression
from thalweg.models.classical.mlp import mlp
from thalweg.tasks.classification import Classification
from thalweg.tasks.regression import Regression
from thalweg.training import Experiment, Task, Training
from thalweg.training.optimisers import sgd


def concise(task: Task, stream: TensorStream, steps: int, lr: float) -> list[float]:
    """The losses of a run of the house's own loop."""
    made = Experiment(task=task, train=stream, steps=steps, optimizer=sgd(lr))
    return [step.losses[""].item() for step in Training(made, device="cpu", precision="fp32")]


def from_scratch(
    parameters: list[Tensor], loss: Callable[[list[Tensor], Tensor, Tensor], Tensor], batches, steps: int, lr: float
) -> list[float]:
    """The losses of stochastic gradient descent, written out."""
    course = []
    for _, (x, y) in zip(range(steps), batches, strict=False):
        value = loss(parameters, x, y)
        for parameter, gradient in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
            parameter.data -= lr * gradient
        course.append(value.item())
    return course


def copied(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone().requires_grad_() for parameter in module.parameters()]


def mean_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    shifted = logits - logits.max(1, keepdim=True).values
    log_probability = shifted - shifted.exp().sum(1, keepdim=True).log()
    return -log_probability[torch.arange(len(label)), label].mean()


def same(ours: list[float], naive: list[float], fall: float) -> None:
    assert_close(torch.tensor(ours), torch.tensor(naive), rtol=1e-4, atol=1e-5)
    assert sum(naive[-10:]) < fall * sum(naive[:10])


def test_linear_regression_from_scratch_and_concise_take_the_same_course():
    raw = load_diabetes()
    features = torch.tensor(raw.data * 442**0.5, dtype=torch.float32)
    target = torch.tensor((raw.target - raw.target.mean()) / raw.target.std(), dtype=torch.float32)[:, None]
    stream = TensorStream({"features": features, "target": target}, 32, shuffle=True)
    model = build(linear_regression, in_features=10)

    def batches():
        number = 0
        while True:
            chosen = stream.indices(number)
            yield features[chosen], target[chosen]
            number += 1

    def loss(parameters: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        weight, bias = parameters
        return ((x @ weight.T + bias - y) ** 2).mean()

    naive = from_scratch(copied(model), loss, batches(), 200, 0.03)
    same(concise(Regression(model), stream, 200, 0.03), naive, fall=0.7)


def pixels() -> TensorStream:
    train = digits().train
    return TensorStream({"image": train["image"] / 255, "label": train["label"]}, 64, shuffle=True)


def flattened(stream: TensorStream):
    for batch in stream.batches():
        yield batch["image"].flatten(1), batch["label"]


def test_softmax_regression_from_scratch_and_concise_take_the_same_course():
    stream, model = pixels(), build(softmax_regression, image_size=8)
    naive = from_scratch(copied(model), lambda p, x, y: mean_cross_entropy(x @ p[0].T + p[1], y), flattened(stream), 300, 0.5)
    same(concise(Classification(model, tuple("0123456789")), stream, 300, 0.5), naive, fall=0.2)


def test_a_perceptron_from_scratch_and_concise_take_the_same_course():
    stream, model = pixels(), build(mlp, in_features=64, out_features=10, hidden_dims=[64])

    def loss(p: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        hidden = x @ p[0].T + p[1]
        hidden = torch.where(hidden > 0, hidden, 0 * hidden)
        return mean_cross_entropy(hidden @ p[2].T + p[3], y)

    naive = from_scratch(copied(model), loss, flattened(stream), 300, 0.3)
    same(concise(Classification(model, tuple("0123456789")), stream, 300, 0.3), naive, fall=0.2)


TEXT = "the time traveller for so it will be convenient to speak of him was expounding a recondite matter to us "


def test_a_recurrent_network_from_scratch_and_concise_take_the_same_course():
    """h_t = tanh(W_x x_t + b_x + W_h h_(t-1) + b_h), logits_t = W_o h_t + b_o   D2L 8.5-8.6"""
    letters = sorted(set(TEXT))
    tokens = torch.tensor([letters.index(letter) for letter in TEXT])
    windows = tokens.unfold(0, 21, 4)  # [window time]
    x, y = nn.functional.one_hot(windows[:, :-1], len(letters)).double(), windows[:, 1:]
    network = nn.ModuleDict({"body": nn.RNN(len(letters), 48, batch_first=True), "head": nn.Linear(48, len(letters))})
    network.double()  # in float32 the two drift apart after a hundred steps: the course is chaotic

    def loss(p: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        by_input, by_state, input_bias, state_bias, out, out_bias = p
        state, logits = x.new_zeros(len(x), 48), []
        for t in range(x.shape[1]):
            state = torch.tanh(x[:, t] @ by_input.T + input_bias + state @ by_state.T + state_bias)
            logits.append(state @ out.T + out_bias)
        return mean_cross_entropy(torch.stack(logits, 1).flatten(0, 1), y.flatten())

    naive = from_scratch(copied(network), loss, iter(lambda: (x, y), None), 150, 1.0)
    optimizer, course = torch.optim.SGD(network.parameters(), lr=1.0), []
    for _ in range(150):
        value = nn.functional.cross_entropy(network["head"](network["body"](x)[0]).movedim(-1, 1), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        course.append(value.item())
    same(course, naive, fall=0.6)


def test_two_workers_with_half_a_batch_each_take_the_course_of_one():
    """Data parallelism from scratch: equal copies, summed gradients, equal steps.   D2L 12.5"""
    stream, model = pixels(), build(softmax_regression, image_size=8)
    workers, course = [copied(model), copied(model)], []
    for _, (x, y) in zip(range(100), flattened(stream), strict=False):
        sums = [mean_cross_entropy(x[i::2] @ p[0].T + p[1], y[i::2]) * len(x[i::2]) for i, p in enumerate(workers)]
        gradients = [torch.autograd.grad(total, p) for total, p in zip(sums, workers, strict=True)]
        together = [sum(pair) / len(x) for pair in zip(*gradients, strict=True)]  # the all-reduce
        for p in workers:
            for parameter, gradient in zip(p, together, strict=True):
                parameter.data -= 0.5 * gradient
        course.append(sum(value.item() for value in sums) / len(x))
    assert all(torch.equal(first, second) for first, second in zip(*workers, strict=True))
    same(concise(Classification(model, tuple("0123456789")), stream, 100, 0.5), course, fall=0.5)


CLOTHES = {  # steps, initial weights, logits, and what the book says it reaches
    "softmax regression": (
        2100,
        lambda: [torch.zeros(10, 784), torch.zeros(10)],
        lambda p, x: x @ p[0].T + p[1],
        0.82,
    ),
    "perceptron": (
        1000,
        lambda: [torch.randn(256, 784) / 28, torch.zeros(256), torch.randn(10, 256) / 16, torch.zeros(10)],
        lambda p, x: (x @ p[0].T + p[1]).clamp(min=0) @ p[2].T + p[3],
        0.85,
    ),
}


@pytest.mark.parametrize("name", CLOTHES)
def test_what_is_written_from_scratch_tells_clothes_apart(name, data_folder):
    """Its concise twin is the recipe softmax-fashion-mnist or mlp-fashion-mnist."""
    steps, initial, logits, accuracy = CLOTHES[name]
    splits = fashion_mnist()
    train, test = (
        {"image": (part["image"] / 255 - 0.286) / 0.353, "label": part["label"]} for part in (splits.train, splits.test)
    )
    parameters = [parameter.requires_grad_() for parameter in initial()]
    batches = flattened(TensorStream(train, 256, shuffle=True))
    from_scratch(parameters, lambda p, x, y: mean_cross_entropy(logits(p, x), y), batches, steps, 0.1)
    assert (logits(parameters, test["image"].flatten(1)).argmax(1) == test["label"]).float().mean() > accuracy
