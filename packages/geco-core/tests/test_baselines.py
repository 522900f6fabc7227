"""The two baselines: closed forms, schedule, and the same use as GECO's."""

import math

import pytest
import torch

from geco_core import (
    ELBO,
    AnnealedELBO,
    CyclicalELBO,
    FreeBitsELBO,
    OptimalSigmaELBO,
    SetPointELBO,
)


@pytest.mark.parametrize(("beta", "sigma"), [(1.0, 1.0), (4.0, 0.5)])
def test_elbo_is_the_negative_log_likelihood_plus_the_kl(beta, sigma):
    x, reconstruction = torch.rand(5, 2, 3), torch.rand(5, 2, 3, requires_grad=True)
    kl = torch.rand(5)
    normal = torch.distributions.Normal(reconstruction, sigma)
    expected = (beta * kl - normal.log_prob(x).sum((1, 2))).mean()
    objective = ELBO(beta=beta, sigma=sigma)
    torch.testing.assert_close(objective(kl, x, reconstruction, labels=None), expected)
    info = objective.info
    assert info.beta.item() == pytest.approx(beta * sigma**2)
    torch.testing.assert_close(info.kl, kl.mean())
    for field in [
        "constraint",
        "moving_average",
        "multiplier",
        "feasible",
        "saturated",
        "skipped",
    ]:
        assert info[field] is None
    assert len(objective.constraints) == 0
    assert not list(objective.parameters())


def test_only_the_temperature_matters(loop):
    """D1: equal beta sigma^2 means equal directions of the gradient."""
    gradients = []
    for beta, sigma in ((1.0, 0.5), (0.25, 1.0)):
        trained = loop(ELBO(beta, sigma))
        x, noise = trained.batch()
        reconstruction, kl = trained.model(x, noise)
        trained.objective(kl, x, reconstruction).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trained.model.parameters()]))
    torch.testing.assert_close(gradients[0], 4 * gradients[1], rtol=1e-4, atol=1e-4)


def test_the_schedule(loop):
    objective = AnnealedELBO(sigma_start=2.0, sigma_end=0.5, steps=4)
    seen = []
    trained = loop(objective)
    for _ in range(7):
        seen.append(objective.info.beta.item())
        trained.run(1)
    expected = [2.0, 1.625, 1.25, 0.875, 0.5, 0.5, 0.5]
    assert seen == pytest.approx([sigma**2 for sigma in expected])
    objective.eval()
    objective.step()
    assert objective.steps_done.item() == 7


def test_annealed_loss_uses_the_present_sigma(loop):
    annealed, fixed = AnnealedELBO(3.0, 1.0, steps=2), ELBO(sigma=2.0)
    annealed.step()
    trained = loop(annealed)
    x, noise = trained.batch()
    reconstruction, kl = trained.model(x, noise)
    torch.testing.assert_close(annealed(kl, x, reconstruction), fixed(kl, x, reconstruction))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: ELBO(beta=0.0), ValueError, "`beta`"),
        (lambda: ELBO(sigma=math.inf), ValueError, "`sigma`"),
        (lambda: ELBO(sigma="1"), TypeError, "`sigma`"),
        (lambda: AnnealedELBO(sigma_start=-1.0), ValueError, "`sigma_start`"),
        (lambda: AnnealedELBO(steps=0), ValueError, "`steps`"),
        (lambda: AnnealedELBO(steps=1.5), TypeError, "`steps`"),
    ],
)
def test_bad_settings(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize("make", [ELBO, AnnealedELBO])
def test_bad_input(make):
    x, good = torch.zeros(4, 3), torch.zeros(4, 3, requires_grad=True)
    kl = torch.zeros(4)
    for arguments, error in (
        ((kl[:2], x, good), ValueError),
        ((kl, x, good[:, :2]), ValueError),
        ((kl, x.int(), good), TypeError),
        ((kl, x, x), RuntimeError),
    ):
        with pytest.raises(error):
            make()(*arguments)
    assert make().eval()(kl, x, x).isfinite()


def test_the_optimal_sigma_is_the_error_of_the_batch():
    """The loss is the least over all fixed sigmas, and its gradient that of ln MSE."""
    x, g = torch.rand(5, 6), torch.rand(5, 6, requires_grad=True)
    kl = torch.rand(5)
    objective = OptimalSigmaELBO()
    loss = objective(kl, x, g)
    mse = (x - g).square().mean()
    torch.testing.assert_close(loss, ELBO(sigma=mse.sqrt().item())(kl, x, g))
    (gradient,) = torch.autograd.grad(loss, g, retain_graph=True)
    (expected,) = torch.autograd.grad(3 * mse.log(), g)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(objective.info.beta, mse.detach())
    for sigma in (0.9, 1.1):
        assert ELBO(sigma=sigma * mse.sqrt().item())(kl, x, g) > loss
    assert OptimalSigmaELBO(floor=0.1)(kl, x, x.clone().requires_grad_()).isfinite()


def test_cycles_rise_and_start_anew():
    objective = CyclicalELBO(steps=20, cycles=2, ramp=0.5)
    seen = []
    for _ in range(22):
        seen.append(float(objective.weight()))
        objective.step()
    cycle = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert seen == pytest.approx(cycle * 2 + [1.0, 1.0])
    x, g = torch.rand(2, 3), torch.rand(2, 3, requires_grad=True)
    middle = CyclicalELBO(steps=20, cycles=2, sigma=0.5)
    middle.load_state_dict({"steps_done": torch.tensor(3)})
    torch.testing.assert_close(middle(torch.ones(2), x, g), ELBO(0.6, 0.5)(torch.ones(2), x, g))


def test_free_bits_cost_nothing():
    x, g = torch.rand(2, 3), torch.rand(2, 3, requires_grad=True)
    groups = torch.tensor([[0.2, 3.0], [0.4, 5.0]], requires_grad=True)
    kl = groups.sum(1)
    nll = ELBO()(torch.zeros(2), x, g)
    loss = FreeBitsELBO(0.5)(kl, x, g, kl_per_group=groups)
    torch.testing.assert_close(loss - nll, torch.tensor(4.5))
    (gradient,) = torch.autograd.grad(loss, groups, retain_graph=True)
    assert gradient.tolist() == [[0.0, 0.5], [0.0, 0.5]]
    torch.testing.assert_close(FreeBitsELBO(9.0)(kl, x, g) - nll, torch.tensor(9.0))
    torch.testing.assert_close(FreeBitsELBO(1.0)(kl, x, g) - nll, kl.mean())
    with pytest.raises(ValueError, match="`kl_per_group`"):
        FreeBitsELBO(1.0)(kl, x, g, kl_per_group=kl)


def test_the_set_point_controller_by_hand():
    objective = SetPointELBO(5.0, proportional=0.1, integral=0.02, bounds=(0.5, 2.0))
    integral, weight = 0.0, 0.5
    x, g = torch.rand(2, 3), torch.rand(2, 3, requires_grad=True)
    for kl in (9.0, 30.0, 2.0, 0.0, 90.0, 4.0, math.nan, 5.0):
        loss = objective(torch.full((2,), kl), x, g)
        if math.isfinite(kl):
            torch.testing.assert_close(loss, ELBO(beta=weight)(torch.full((2,), kl), x, g))
            error = 5.0 - kl
            integral = min(max(integral - 0.02 * error, 0.0), 1.5)
            weight = min(max(0.5 + 0.1 / (1 + math.exp(error)) + integral, 0.5), 2.0)
        objective.step()
        assert float(objective.weight()) == pytest.approx(weight, rel=1e-5)
    twin = SetPointELBO(5.0, bounds=(0.5, 2.0))
    twin.load_state_dict(objective.state_dict())
    assert twin.weight() == objective.weight()
    with pytest.raises(RuntimeError, match="since the last one"):
        objective.step()


def test_a_set_point_is_reached(loop):
    """A weight that moves until the KL is what was asked for."""
    objective = SetPointELBO(1.0, sigma=0.5, integral=2e-3, bounds=(0.1, 100.0))
    trained = loop(objective, rate=1e-2)
    trained.run(3000, size=64)
    kls = []
    for _ in range(50):
        trained.run(1, size=64)
        kls.append(objective.info.kl.item())
    assert sum(kls) / 50 == pytest.approx(1.0, rel=0.1)
