"""The ascent sees the true measure, the model the gradient of its proxy."""

import pytest
import torch

from geco_core import GECO, Proxied


def wrong(x, g):
    return (g[:, 0] < 0).float() - 0.25


def hinge(x, g):
    return (1 - g[:, 0]).clamp(min=0)


def test_values_of_one_and_gradients_of_the_other():
    g = torch.tensor([[-1.0], [0.5], [3.0], [2.0]], requires_grad=True)
    violation = Proxied(wrong, hinge)(None, g)
    assert violation.tolist() == [0.75, -0.25, -0.25, -0.25]
    (gradient,) = torch.autograd.grad(violation.sum(), g)
    assert gradient.flatten().tolist() == [-1.0, -1.0, 0.0, 0.0]


def test_the_ascent_is_that_of_the_measure(feed):
    g = torch.tensor([[-1.0], [0.5], [3.0], [2.0]], requires_grad=True)
    objective, other = GECO(Proxied(wrong, hinge)), GECO(lambda x, r, constraint: constraint)
    for _ in range(4):
        objective(torch.ones(4), None, g)
        objective.step()
    feed(other, *[0.0] * 4)  # a quarter is wrong, as is allowed
    assert torch.equal(objective.multipliers.table, other.multipliers.table)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one value per example"):
        Proxied(wrong, lambda x, g: g)(None, torch.ones(2, 1))
    with pytest.raises(TypeError, match="function"):
        Proxied(wrong, 3.0)
