"""The KL as a constraint, beside a loss that is anything."""

import math

import pytest
import torch

from geco_core import GECO, Rate


def test_violation_units_and_beta():
    objective = GECO({"rate": Rate(at_most=2.0)})
    kl = torch.tensor([1.0, 5.0], requires_grad=True)
    objective(torch.zeros(2), None, None, kl=kl)
    objective.step()
    info = objective.info
    assert info.constraint["rate"].item() == 1.0
    assert objective.relative_violations()["rate"].item() == pytest.approx(0.5)
    torch.testing.assert_close(info.beta["rate"], info.multiplier["rate"])


def test_ways_to_call():
    kl = torch.tensor([1.0, 5.0], requires_grad=True)
    losses = [
        GECO(Rate(2.0))(torch.ones(2), kl=kl),
        GECO(Rate(2.0))(torch.ones(2), None, None, kl=kl),
        GECO(Rate(2.0))(loss=torch.ones(2), kl=kl),
    ]
    assert losses[0] == losses[1] == losses[2]
    with pytest.raises(ValueError, match="`kl` is missing"):
        GECO(Rate(2.0))(torch.ones(2), None, None)
    with pytest.raises(TypeError, match="missing"):
        GECO(Rate(2.0))()
    with pytest.raises(TypeError, match="`kl`, the loss of every example, is missing"):
        GECO(lambda x, r: r)(x=1, reconstruction=2)


def test_a_distortion_rate_function():
    """min e^(-2 r) subject to r <= R: the multiplier is the slope 2 e^(-2 R)."""
    r = torch.tensor([0.1], requires_grad=True)
    objective, optimizer = GECO(Rate(at_most=0.7)), torch.optim.SGD([r], lr=0.05)
    for _ in range(3000):
        objective((-2 * r).exp(), kl=r).backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
    assert r.item() == pytest.approx(0.7, rel=1e-2)
    assert objective.info.multiplier.item() == pytest.approx(2 * math.exp(-1.4), rel=2e-2)


def test_states_and_bad_input():
    source, target = Rate(3.0), Rate(1.0)
    target.load_state_dict(source.state_dict())
    assert target.at_most == 3.0
    with pytest.raises(ValueError, match="that of a Rate"):
        target.set_extra_state({"kind": "other"})
    assert Rate(0.0, scale=1.0).scale == 1.0
    for wrong, error in ((-1.0, ValueError), (0.0, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="`at_most`"):
            Rate(wrong)
    with pytest.raises(TypeError, match="floating-point"):
        Rate(1.0)(None, None, kl=torch.ones(2, dtype=torch.long))
