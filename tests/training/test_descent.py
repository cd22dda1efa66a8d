"""The way down as the books teach it, on functions small enough to know the answer.   LBDL 3.3, D2L 11.1-11.6"""

import math
import time
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import grad, hessian
from torch.nn.utils import parametrize

from thalweg.training.optimisers import OPTIMISERS, sgd


def descend(f, start, make, steps):
    """The points on the way, the first among them."""
    module = nn.ParameterList([torch.as_tensor(start, dtype=torch.float64)])
    optimizer, path = make(module), [module[0].detach().clone()]
    for _ in range(steps):
        (module[0].grad,) = torch.autograd.grad(f(module[0]), module[0])
        optimizer.step()
        path.append(module[0].detach().clone())
    return torch.stack(path)


def needed(f, start, make, steps):
    """Steps until f is small."""
    values = torch.stack([f(x) for x in descend(f, start, make, steps)])
    small = (values < 1e-3).nonzero()
    return int(small[0]) if len(small) else steps


RAVINE = torch.tensor([1.0, 100.0], dtype=torch.float64)  # curvatures; L is the largest


def ravine(x):
    return (RAVINE * x**2).sum() / 2


@pytest.mark.parametrize(("lr", "goes"), [(1.9 / 100, "down"), (2.1 / 100, "up")])
def test_gradient_descent_converges_below_2_over_the_largest_curvature_and_diverges_past_it(lr, goes):
    values = [ravine(x).item() for x in descend(ravine, [1.0, 1.0], sgd(lr), 400)]
    assert values[-1] < 1e-3 * values[0] if goes == "down" else values[-1] > 1e6 * values[0]


def test_every_step_of_gradient_descent_multiplies_the_error_by_1_minus_rate_times_curvature():
    path = descend(ravine, [1.0, 1.0], sgd(0.015), 10)
    expected = torch.stack([(1 - 0.015 * RAVINE) ** t for t in range(11)])
    torch.testing.assert_close(path, expected, rtol=0, atol=1e-12)


def test_gradient_descent_stays_in_the_local_minimum_that_it_starts_above():
    def f(x):
        return (x**4 - 2 * x**2 + 0.3 * x).sum()

    left, right = (descend(f, [start], sgd(0.02), 400)[-1] for start in (-0.5, 0.5))
    assert right > 0.5
    assert f(left) < f(right) - 0.3
    assert abs(grad(f)(right).item()) < 1e-8


def test_momentum_needs_fewer_steps_on_an_ill_conditioned_quadratic():
    """Each at its best rate: 2 / (l + L) against the rate and momentum of Polyak."""
    small, large = RAVINE.tolist()
    root = math.sqrt(large / small)
    plain = needed(ravine, [1.0, 1.0], sgd(2 / (small + large)), 600)
    heavy = sgd(4 / (math.sqrt(small) + math.sqrt(large)) ** 2, momentum=((root - 1) / (root + 1)) ** 2)
    assert needed(ravine, [1.0, 1.0], heavy, 100) < plain / 4


def test_momentum_goes_as_far_as_1_over_1_minus_momentum_gradients():
    path = descend(lambda x: x.sum(), [0.0], sgd(0.1, momentum=0.9), 200)
    assert (path[-2] - path[-1]).item() == pytest.approx(0.1 * 10, rel=1e-6)
    first = descend(lambda x: x.sum(), [0.0], sgd(0.1, momentum=0.9), 1)
    assert (first[0] - first[1]).item() == pytest.approx(0.1)


def test_nesterov_s_momentum_overshoots_less():
    ball = lambda x: 10 * (x**2).sum()  # noqa: E731
    lowest = [descend(ball, [1.0], OPTIMISERS[name](0.03), 60).min().item() for name in ("momentum", "nesterov")]
    assert lowest[1] > 0.7 * lowest[0]
    assert lowest[0] < 0


def regression(count=20_000, features=50):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(count, features, generator=random) * torch.linspace(0.3, 3, features)
    return x, x @ torch.randn(features, generator=random) + 0.1 * torch.randn(count, generator=random)


def seconds_until(x, y, batch, lr, target):
    """Of descent by batches of this size until the loss on all is reached, and the steps taken; looking is not counted."""
    w, spent, steps = torch.zeros(x.shape[1]), 0.0, 0
    random = torch.Generator().manual_seed(1)
    while steps < 20_000:
        start = time.process_time()
        for rows in torch.randperm(len(x), generator=random)[: 20 * batch].split(batch):
            part, aim = (x[rows], y[rows]) if batch < len(x) else (x, y)
            w -= lr * part.T @ (part @ w - aim) / len(part)
            steps += 1
        spent += time.process_time() - start
        if ((x @ w - y) ** 2).mean() / 2 < target:
            return spent, steps
    raise AssertionError("not reached")


def test_batches_reach_the_same_loss_in_less_time_than_all_examples_and_than_single_ones():
    x, y = regression()
    largest = torch.linalg.eigvalsh(x.T @ x / len(x))[-1].item()
    every, some, one = (
        min(seconds_until(x, y, batch, lr, 0.05)[0] for _ in range(2))
        for batch, lr in ((len(x), 1.8 / largest), (100, 0.5 / largest), (1, 0.02 / largest))
    )
    assert some < 0.7 * every
    assert some < 0.7 * one


# Newton


def newton(f, x, steps=1, adjusted=False):
    """x = x - H^-1 g;   adjusted: with the sizes of H's eigenvalues, so that every direction goes down."""
    for _ in range(steps):
        curvature = hessian(f)(x)
        if adjusted:
            values, vectors = torch.linalg.eigh(curvature)
            curvature = vectors @ values.abs().diag() @ vectors.T
        x = x - torch.linalg.solve(curvature, grad(f)(x))
    return x


def test_newton_needs_one_step_on_a_quadratic():
    random = torch.Generator().manual_seed(0)
    a = torch.randn(5, 5, generator=random, dtype=torch.float64)
    a, b = a @ a.T + torch.eye(5), torch.randn(5, generator=random, dtype=torch.float64)
    found = newton(lambda x: x @ a @ x / 2 - b @ x, torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(found, torch.linalg.solve(a, b))


def test_near_the_minimum_of_a_convex_function_newton_doubles_the_digits_each_step():
    x, errors = torch.tensor([0.5], dtype=torch.float64), []
    for _ in range(4):
        x = newton(lambda x: torch.cosh(x).sum() + (x**3).sum() / 6, x)
        errors.append(x.abs().item())
    assert all(after < 2 * before**2 for before, after in pairwise(errors) if after > 1e-15)
    assert errors[-1] < 1e-8


def test_newton_goes_to_a_maximum_where_the_curvature_is_negative_adjusted_it_does_not():
    def f(x):
        return torch.cos(x).sum()

    start = torch.tensor([0.5], dtype=torch.float64)
    assert newton(f, start, 6).item() == pytest.approx(0, abs=1e-8)  # the maximum
    assert f(newton(f, start)) > f(start)
    assert newton(f, start, 12, adjusted=True).item() == pytest.approx(math.pi, abs=1e-6)


# Preconditioning and reparametrisation


def test_scaling_by_the_diagonal_of_the_hessian_lowers_the_condition_and_the_number_of_steps():
    h = torch.tensor([[100.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    scale = h.diagonal().rsqrt()
    scaled = scale[:, None] * h * scale  # of the variable x / scale
    condition = {name: torch.linalg.cond(m).item() for name, m in (("plain", h), ("scaled", scaled))}
    assert condition["plain"] > 100
    assert condition["scaled"] < 2
    steps = {}
    for name, m in (("plain", h), ("scaled", scaled)):
        values = torch.linalg.eigvalsh(m)
        steps[name] = needed(lambda x, m=m: x @ m @ x / 2, [1.0, 1.0], sgd(2 / (values[0] + values[-1]).item()), 400)
    assert steps["scaled"] < steps["plain"] / 10


class InverseTanh(nn.Module):
    def forward(self, x):
        return x.atanh()


def test_what_stalls_on_a_plateau_converges_after_a_change_of_variables():
    """tanh of a large number is flat; trained as w = atanh(u), the flatness of one undoes that of the other."""

    def trained(reparametrised):
        layer = nn.Linear(1, 1, bias=False).double()
        layer.weight.data.fill_(6.0)
        if reparametrised:
            layer.weight.data.tanh_()
            parametrize.register_parametrization(layer, "weight", InverseTanh())
        optimizer = sgd(0.4)(layer)
        for _ in range(50):
            optimizer.zero_grad()
            loss = (torch.tanh(layer(torch.ones(1, 1, dtype=torch.float64))) - 0.5).pow(2).sum()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert trained(False) > 0.2
    assert trained(True) < 1e-8


# Convexity


def into_the_ball(x, radius):
    """The closest point within this distance of 0: x radius / max(radius, |x|); torch.renorm does it row by row."""
    return torch.renorm(x[None], 2, 0, radius)[0]


def test_the_projection_on_a_ball_is_its_closest_point():
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.randn(3, generator=random, dtype=torch.float64) * 2
        found = into_the_ball(x, 1.0)
        torch.testing.assert_close(found, x / max(1.0, x.norm().item()), rtol=1e-6, atol=0)
        others = torch.randn(2000, 3, generator=random, dtype=torch.float64)
        others = others / others.norm(dim=1, keepdim=True) * torch.rand(2000, 1, generator=random, dtype=torch.float64)
        assert (others - x).norm(dim=1).min() > (found - x).norm() - 1e-6


def test_projected_descent_stays_feasible_and_ends_at_the_closest_point_to_the_free_minimum():
    aim = torch.tensor([3.0, -4.0], dtype=torch.float64)
    module = nn.ParameterList([torch.zeros(2, dtype=torch.float64)])
    optimizer = sgd(0.1)(module)
    for _ in range(100):
        module[0].grad = module[0].detach() - aim
        optimizer.step()
        module[0].data = into_the_ball(module[0].data, 1.0)
        assert module[0].norm() <= 1 + 1e-9
    torch.testing.assert_close(module[0].detach(), aim / 5, rtol=0, atol=1e-6)


FUNCTIONS = {
    "square": (lambda x: (x**2).sum(), True),
    "exponential": (lambda x: x.exp().sum(), True),
    "logsumexp": (lambda x: x.logsumexp(0), True),
    "cosine": (lambda x: torch.cos(math.pi * x).sum(), False),
    "saddle": (lambda x: x[0] * x[1], False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_convex_if_jensen_s_inequality_and_if_its_hessian_say_so(name):
    f, convex = FUNCTIONS[name]
    random = torch.Generator().manual_seed(0)
    points = torch.randn(200, 2, generator=random, dtype=torch.float64)
    weights = torch.rand(100, 2, generator=random, dtype=torch.float64)
    weights = weights / weights.sum(1, keepdim=True)
    pairs = points.view(100, 2, 2)
    mixed = torch.stack([f((w[:, None] * pair).sum(0)) for w, pair in zip(weights, pairs, strict=True)])
    apart = torch.stack([w[0] * f(pair[0]) + w[1] * f(pair[1]) for w, pair in zip(weights, pairs, strict=True)])
    assert bool((mixed <= apart + 1e-9).all()) is convex
    curvatures = torch.linalg.eigvalsh(torch.vmap(hessian(f))(points))
    assert bool((curvatures >= -1e-9).all()) is convex


def test_the_intersection_of_convex_sets_is_convex_their_union_need_not_be():
    random = torch.Generator().manual_seed(0)
    points = torch.randn(4000, 2, generator=random) * 1.5

    def left(x):
        return (x + torch.tensor([0.5, 0.0])).norm(dim=-1) < 1

    def right(x):
        return (x - torch.tensor([0.5, 0.0])).norm(dim=-1) < 1

    def convex(inside):
        held = points[inside(points)]
        return bool(inside((held[:, None] + held) / 2).all())

    assert convex(left)
    assert convex(right)
    assert convex(lambda x: left(x) & right(x))
    assert not convex(lambda x: left(x) | right(x))


def test_a_local_minimum_of_a_convex_function_is_the_only_one():
    f = FUNCTIONS["logsumexp"][0]

    def bowl(x):
        return f(x) + (x**2).sum()

    ends = torch.stack([descend(bowl, start, sgd(0.2), 200)[-1] for start in ([3.0, 1.0], [-2.0, 4.0], [0.0, -5.0])])
    torch.testing.assert_close(ends, ends[:1].expand_as(ends), rtol=0, atol=1e-8)
