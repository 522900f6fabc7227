"""The two baselines: closed forms, schedule, and the same use as GECO's."""

import math

import pytest
import torch

from geco_core import ELBO, AnnealedELBO


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
