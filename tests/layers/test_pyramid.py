"""A feature pyramid against its definition."""

import torch

from thalweg.layers.pyramid import FeaturePyramid


def test_a_pyramid_adds_what_smaller_maps_saw_at_twice_the_extent():
    pyramid = FeaturePyramid([2, 3], 4).double()
    large, little = torch.randn(1, 2, 4, 6, dtype=torch.float64), torch.randn(1, 3, 2, 3, dtype=torch.float64)
    told = pyramid.lateral[1](little)
    inner = pyramid.lateral[0](large) + told.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for ours, theirs in zip(pyramid([large, little]), [pyramid.output[0](inner), pyramid.output[1](told)], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_what_the_coarsest_map_sees_reaches_the_finest_and_not_the_other_way():
    pyramid = FeaturePyramid([2, 3, 4], 8).double()
    maps = [torch.randn(1, c, e, e, dtype=torch.float64, requires_grad=True) for c, e in ((2, 8), (3, 4), (4, 2))]
    finest, _, coarsest = pyramid(maps)
    assert all(gradient.any() for gradient in torch.autograd.grad(finest.sum(), maps, retain_graph=True))
    seen = torch.autograd.grad(coarsest.sum(), maps, allow_unused=True)
    assert seen[0] is None
    assert seen[2].any()
