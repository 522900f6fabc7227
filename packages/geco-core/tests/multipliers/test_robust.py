"""The default rule: replayed by hand, its bounds, its fixed point, its recovery."""

import math

import pytest
import torch
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st

from geco_core import GECO, CallableConstraint, ReconstructionError, RobustUpdate


def bare(x, reconstruction, constraint):
    return constraint


def test_by_hand(feed):
    objective = GECO(bare)
    integral = log_multiplier = slow = fast = 0.0
    for n, violation in enumerate([40.0, 3.0, -0.5, 0.2, -0.9, 0.0] * 30, start=1):
        size = math.exp(log_multiplier)
        scale = 1 / (1 + size * max(1 + fast, 1.0, violation))
        slow += max(1 / n, 0.01) * (violation - slow)
        fast += max(1 / n, 0.1) * (violation - fast)
        push = min(max(math.asinh(fast), -1.0), 0.5)
        integral = min(max(integral + 0.02 * push, math.log(1e-4)), math.log(1e5))
        log_multiplier = min(max(integral + math.asinh(slow), math.log(1e-4)), math.log(1e5))
        loss = feed(objective, violation)
        assert loss.item() == pytest.approx(scale * (1.0 + size * violation), rel=1e-4, abs=1e-6)
        info = objective.info
        assert info.relative_multiplier.log().item() == pytest.approx(log_multiplier, abs=1e-4)
        assert info.moving_average.item() == pytest.approx(slow, abs=1e-4)


@settings(deadline=None, max_examples=30)
@cases(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40))
def test_bounds_hold_whatever_comes(violations):
    objective = GECO(bare, update=RobustUpdate(rate=0.5, gain=3.0, bounds=(1e-2, 1e3)))
    for violation in violations:
        knob = torch.zeros(2, requires_grad=True)
        x = torch.zeros(2, 1)
        loss = objective(knob + 1, x, x, constraint=knob + violation)
        objective.step()
        relative = objective.info.relative_multiplier.item()
        assert 1e-2 * 0.999 <= relative <= 1e3 * 1.001
        assert math.isfinite(loss.item())
        # the loss never weighs more than its parts
        assert abs(loss.item()) <= max(1.0, abs(violation)) + 1e-3


@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e4])
def test_units_do_not_matter(loop, factor):
    """The same run in other units of the data: the same relative multiplier at every step."""

    class Scaled(CallableConstraint):
        def __init__(self):
            super().__init__(
                lambda x, r: factor * ((x - r).square().mean(1) - 0.25), scale=factor * 0.25
            )

    reference, other = GECO(ReconstructionError(kappa=0.5)), GECO(Scaled())
    loop(reference).run(60)
    loop(other).run(60)
    torch.testing.assert_close(
        reference.info.relative_multiplier, other.info.relative_multiplier, rtol=1e-3, atol=0
    )
    torch.testing.assert_close(
        reference.info.multiplier, other.info.multiplier * factor, rtol=1e-3, atol=0
    )


def test_slack_goes_to_the_floor_and_comes_back(feed):
    """After any time of slack the multiplier is back at 1 within 920 steps of binding."""
    objective = GECO(bare)
    feed(objective, *[-0.9] * 600)
    floor = RobustUpdate().bounds[0]
    assert objective.info.relative_multiplier.item() == pytest.approx(floor, rel=1e-3)
    assert objective.info.feasible.item()
    steps = 0
    while objective.info.relative_multiplier.item() < 1.0:
        feed(objective, 4.0)  # five times the allowed error
        steps += 1
    assert steps <= 920


def test_settings_of_a_fixed_weight(loop):
    """No gain: the multiplier stays, and the loss is that of a beta-VAE."""
    update = RobustUpdate(rate=0.0, gain=0.0, initial=7.0, rescale=False)
    objective = GECO(ReconstructionError(kappa=0.5), update=update)
    trained = loop(objective)
    trained.run(20)
    assert objective.info.relative_multiplier.item() == pytest.approx(7.0)
    x, noise = trained.batch()
    reconstruction, kl = trained.model(x, noise)
    expected = kl.mean() + 7.0 * ((x - reconstruction).square().mean() / 0.25 - 1)
    torch.testing.assert_close(objective(kl, x, reconstruction), expected)
    # beta = d / (2 lambda), lambda = 7 / kappa^2
    assert objective.info.beta.item() == pytest.approx(4 / (2 * 28.0))


def test_rescaling_keeps_the_direction_of_the_gradient(loop):
    gradients = []
    for rescale in (True, False):
        objective = GECO(
            ReconstructionError(kappa=0.1), update=RobustUpdate(initial=5.0, rescale=rescale)
        )
        trained = loop(objective)
        x, noise = trained.batch()
        reconstruction, kl = trained.model(x, noise)
        objective(kl, x, reconstruction).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trained.model.parameters()]))
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert cosine.item() == pytest.approx(1.0, abs=1e-6)
    assert gradients[0].norm() < 0.2 * gradients[1].norm()


def test_the_first_step_does_not_fill_adams_memory(loop):
    """With an error a million times too large the first gradient is like the later ones."""
    objective = GECO(ReconstructionError(kappa=1e-3))
    trained = loop(objective)
    sizes = []
    for _ in range(20):
        x, noise = trained.batch()
        reconstruction, kl = trained.model(x, noise)
        loss = objective(kl, x, reconstruction)
        gradient = torch.autograd.grad(loss, trained.model.parameters())
        sizes.append(max(g.abs().max().item() for g in gradient))
        objective.step()
    assert sizes[0] < 3 * sorted(sizes)[10]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"rate": -0.1}, "rate"),
        ({"gain": math.nan}, "gain"),
        ({"decay": 1.0}, "decay"),
        ({"bounds": (1.0, 0.5)}, "bounds"),
        ({"bounds": (0.0, 1.0)}, "bounds"),
        ({"bounds": (1e-3, math.inf)}, "bounds"),
        ({"initial": 1e9}, "initial"),
    ],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"`{name}"):
        RobustUpdate(**settings)


def test_kkt_of_a_quadratic():
    """min w^2 subject to w >= 3 (w.r.t. one number): w = 3, multiplier 6, exactly."""
    w = torch.tensor([0.5], requires_grad=True)
    objective = GECO(lambda x, r: 3.0 - r[:, 0])
    optimizer = torch.optim.SGD([w], lr=0.05)
    x = torch.zeros(1, 1)
    for _ in range(3000):
        objective(w.square(), x, w.reshape(1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    assert w.item() == pytest.approx(3.0, rel=1e-3)
    assert objective.info.multiplier.item() == pytest.approx(6.0, rel=1e-2)


def test_kkt_of_two_constraints_of_which_one_is_slack():
    """min |w|^2 s.t. w_1 >= 1, w_2 >= -1: the second multiplier goes to the floor."""
    w = torch.zeros(2, requires_grad=True)
    objective = GECO({"first": lambda x, r: 1.0 - r[:, 0], "second": lambda x, r: -1.0 - r[:, 1]})
    optimizer = torch.optim.SGD([w], lr=0.05)
    x = torch.zeros(1, 1)
    for _ in range(3000):
        objective(w.square().sum().reshape(1), x, w.reshape(1, 2)).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    torch.testing.assert_close(w.detach(), torch.tensor([1.0, 0.0]), atol=2e-3, rtol=0)
    assert objective.info.multiplier["first"].item() == pytest.approx(2.0, rel=1e-2)
    assert objective.info.multiplier["second"].item() <= 1.1e-4
