"""Equalities reach their target from both sides, with a multiplier of either sign."""

import pytest
import torch

from geco_core import GECO, Equality, Rate, ReconstructionError


@pytest.mark.parametrize("target", [-2.0, 0.5, 3.0])
def test_a_quadratic_on_a_line(target):
    """min (a^2 + b^2) / 2 s.t. a + b = t: a = b = t / 2, multiplier -t / 2."""
    w = torch.tensor([0.3, -0.8], requires_grad=True)
    objective = GECO(Equality(lambda x, g: g.sum(1), target=target))
    optimizer = torch.optim.SGD([w], lr=0.05)
    for _ in range(3000):
        objective((w.square().sum() / 2).reshape(1), None, w[None]).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    torch.testing.assert_close(w.detach(), torch.full((2,), target / 2), atol=2e-2, rtol=2e-2)
    assert objective.info.multiplier.item() == pytest.approx(-target / 2, rel=0.05, abs=0.05)
    assert objective.info.feasible.item()
    assert objective.report().startswith("constraint: feasible")


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_both_sides_are_violations(feed, value):
    objective = GECO(Equality(lambda x, r, constraint: constraint))
    feed(objective, *[value] * 5)
    info = objective.info
    assert not info.feasible
    assert info.constraint.item() == value
    assert info.moving_average.item() == pytest.approx(value)
    assert (info.multiplier.item() > 0) is (value > 0)
    assert objective.relative_violations()["constraint"].item() == pytest.approx(1.0)


def test_of_a_constraint():
    """Its violation has to be 0, in its units."""
    objective = GECO({"rate": Equality(Rate(at_most=4.0)), "RE": ReconstructionError(0.5)})
    x, g = torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True)
    objective(g.sum(1), x, g, kl=g.sum(1))
    assert objective.info.constraint["rate"].item() == -1.0
    assert objective.constraints["rate"].scale == 4.0
    with pytest.raises(ValueError, match="one multiplier"):
        Equality(Equality(lambda x, g: g))
    with pytest.raises(ValueError, match="`target`"):
        Equality(lambda x, g: g, target=float("nan"))
