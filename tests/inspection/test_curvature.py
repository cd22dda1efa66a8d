"""The Hessian by its products."""

import pytest
import torch
from torch.testing import assert_close

from thalweg.inspection.curvature import hessian_product, sharpness


def bowl(values):
    """A loss of two parameters whose Hessian has these eigenvalues, in a basis of its own; and the Hessian."""
    basis = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    hessian = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.mT
    parameters = [
        torch.randn(2, dtype=torch.float64, requires_grad=True),
        torch.randn(3, dtype=torch.float64, requires_grad=True),
    ]
    whole = torch.cat(parameters)
    return whole @ hessian @ whole / 2, parameters, hessian


def test_a_product_with_the_hessian_is_that_with_the_matrix():
    loss, parameters, hessian = bowl([1.0, 2.0, -3.0, 0.5, 4.0])
    direction = [torch.randn_like(p) for p in parameters]
    assert_close(torch.cat(hessian_product(loss, parameters, direction)), hessian @ torch.cat(direction), rtol=0, atol=1e-10)


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0, 0.5, 8.0], [1.0, 2.0, 3.0, 0.5, -8.0]])
def test_sharpness_is_the_largest_eigenvalue_in_size(values):
    loss, parameters, _ = bowl(values)
    assert sharpness(loss, parameters, tolerance=1e-6) == pytest.approx(values[-1], rel=1e-3)


def test_of_a_loss_without_a_bend_sharpness_is_zero():
    parameter = torch.ones(3, requires_grad=True)
    assert sharpness((parameter * 2).sum() + 0 * parameter.square().sum(), [parameter]) == 0
