"""A constraint that can only be met late, as when a network is pruned."""

import pytest
import torch

from geco_core import GECO, CallableConstraint

BUDGET, WEIGHTS, STEPS = 0.3, 20, 6000


class Kept(CallableConstraint):
    """The share of the weights that is kept, at most a budget."""

    def __init__(self, elements):
        super().__init__(lambda x, gates: (gates.mean() - BUDGET).expand(1), scale=BUDGET)
        self.number = elements

    def elements(self, x):
        return self.number


def exact(importance):
    """Gates and multiplier: g = max(0, 1 - l / (2 n a)) with the mean BUDGET."""
    low, high = 0.0, 1e4
    for _ in range(100):
        multiplier = (low + high) / 2
        gates = (1 - multiplier / (2 * WEIGHTS * importance)).clamp_min(0)
        low, high = (multiplier, high) if gates.mean() > BUDGET else (low, multiplier)
    return gates, multiplier


@pytest.mark.parametrize(
    ("elements", "speed", "allowed"),
    [
        (WEIGHTS, 1e-3, 100),
        (WEIGHTS, 3e-4, 100),
        # where the elements are not known the ceiling is less close, and it comes down later
        (None, 1e-3, 400),
        (None, 3e-4, 400),
    ],
)
def test_the_multiplier_comes_back_once_it_is_met(elements, speed, allowed):
    """min sum a (1 - g)^2 s.t. mean g <= 0.3, where no gate moves by more than `speed` a step.

    So many steps after the budget is first met the multiplier is within a factor of 2 of its right
    value for good; at the end both are exact.
    """
    importance = torch.linspace(0.2, 2.0, WEIGHTS) ** 2
    solution, right = exact(importance.double())
    gates, objective = torch.ones(WEIGHTS, requires_grad=True), GECO(Kept(elements))
    met, off = None, 0
    for n in range(STEPS):
        loss = (importance * (1 - gates).square()).sum()
        objective(loss.reshape(1), None, gates).backward()
        with torch.no_grad():
            gates.sub_((0.05 * gates.grad).clamp(-speed, speed)).clamp_(0.0, 1.0)
        gates.grad = None
        objective.step()
        if not right / 2 <= objective.info.multiplier.item() <= 2 * right:
            off = n
        if met is None and gates.mean() <= BUDGET:
            met = n
    assert met is not None
    assert met >= 0.7 / speed - 1  # all of it shrank as fast as it could
    assert off - met <= allowed
    assert objective.info.multiplier.item() == pytest.approx(right, rel=1e-3)
    assert (gates.detach() - solution).abs().max() < 1e-3
