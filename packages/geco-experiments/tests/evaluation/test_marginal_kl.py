import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from geco_experiments.datasets import Batch
from geco_experiments.evaluation.marginal_kl import (
    aggregate_log_prob,
    gaussian_log_prob_matrix,
    marginal_kl,
)


class Gaussian:
    def __init__(self, mean, log_variance):
        self.mean, self.log_variance = mean, log_variance

    def sample(self, generator=None):
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + torch.exp(self.log_variance / 2) * noise

    def log_prob(self, z):
        return Normal(self.mean, torch.exp(self.log_variance / 2)).log_prob(z).flatten(1).sum(1)


class Opaque:
    """The same densities without a closed form to see."""

    def __init__(self, gaussian):
        self.sample, self.log_prob = gaussian.sample, gaussian.log_prob


class Model:
    def __init__(self, posterior, prior_shift=0.0):
        self._posterior, self._shift = posterior, prior_shift

    def posterior(self, x, context=None):
        return self._posterior

    def prior_log_prob(self, z, context=None):
        mean = 0.0 if context is None else self._shift * context
        return Normal(mean, 1.0).log_prob(z).flatten(1).sum(1)


def estimate(posterior, n, context=None, shift=0.0, seed=0):
    # not the seed that made the posteriors: their means would be the noise
    x = torch.zeros(n, 1)
    generator = torch.Generator().manual_seed(1000 + seed)
    return marginal_kl(Model(posterior, shift), Batch(x, context, None), x, generator)


def random_posteriors(n, d, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return Gaussian(mean, torch.randn(n, d, generator=generator, dtype=torch.float64) - 1)


def test_matrix_against_torch_distributions():
    q = random_posteriors(7, 3, spread=100.0)
    z = q.sample(torch.Generator().manual_seed(1))
    matrix = gaussian_log_prob_matrix(z, q.mean, q.log_variance)
    for j in range(7):
        covariance = torch.diag(torch.exp(q.log_variance[j]))
        expected = MultivariateNormal(q.mean[j], covariance).log_prob(z)
        torch.testing.assert_close(matrix[:, j], expected, rtol=1e-9, atol=1e-8)


def test_aggregate_against_torch_mixture(monkeypatch):
    q = random_posteriors(50, 1)
    z = torch.linspace(-4, 4, 33, dtype=torch.float64)[:, None]
    mixture = MixtureSameFamily(
        Categorical(torch.ones(50, dtype=torch.float64)),
        Normal(q.mean[:, 0], torch.exp(q.log_variance[:, 0] / 2)),
    )
    whole = aggregate_log_prob(z, q.mean, q.log_variance)
    torch.testing.assert_close(whole, mixture.log_prob(z[:, 0]))
    monkeypatch.setattr("geco_experiments.evaluation.marginal_kl.BLOCK", 60)
    assert torch.equal(aggregate_log_prob(z, q.mean, q.log_variance), whole)


def test_posterior_equal_to_prior_has_nothing():
    n = 500
    q = Gaussian(torch.zeros(n, 3, dtype=torch.float64), torch.zeros(n, 3, dtype=torch.float64))
    result = estimate(q, n)
    assert abs(result.marginal_kl) < 1e-9
    assert abs(result.mutual_information) < 1e-9
    assert result.posteriors == n


def test_known_aggregate():
    # all posteriors are N(m, s^2): the aggregate is that Gaussian, its KL is known exactly
    n, mean, log_variance = 4000, 1.5, -0.8
    q = Gaussian(
        torch.full((n, 2), mean, dtype=torch.float64),
        torch.full((n, 2), log_variance, dtype=torch.float64),
    )
    exact = 2 * 0.5 * (math.exp(log_variance) + mean**2 - 1 - log_variance)
    result = estimate(q, n)
    assert abs(result.marginal_kl - exact) < 4 * result.marginal_kl_error
    assert result.marginal_kl_error < 0.03 * exact
    assert abs(result.mutual_information) < 1e-9


def test_far_apart_posteriors_know_everything():
    n = 200
    mean = 30.0 * torch.arange(n, dtype=torch.float64)[:, None]
    result = estimate(Gaussian(mean, torch.zeros(n, 1, dtype=torch.float64)), n)
    assert result.mutual_information == pytest.approx(math.log(n), abs=1e-8)


def test_adds_up_to_the_mean_kl_per_datum():
    # D6: E KL(q(z|x) || prior) = I(x; z) + KL(q(z) || prior)
    n = 3000
    q = random_posteriors(n, 2)
    exact = 0.5 * (q.mean**2 + torch.exp(q.log_variance) - 1 - q.log_variance).sum(1)
    result = estimate(q, n)
    error = result.marginal_kl_error + result.mutual_information_error
    total = result.marginal_kl + result.mutual_information
    assert abs(total - exact.mean().item()) < 4 * error


def test_posteriors_without_a_closed_form_give_the_same():
    q = random_posteriors(40, 3)
    closed, opaque = estimate(q, 40), estimate(Opaque(q), 40)
    assert opaque.marginal_kl == pytest.approx(closed.marginal_kl, abs=1e-9)
    assert opaque.mutual_information == pytest.approx(closed.mutual_information, abs=1e-9)


def test_context_matters_only_if_the_prior_depends_on_it():
    q = random_posteriors(20, 1)
    context = torch.arange(20.0)[:, None]
    assert estimate(q, 20, context) is not None
    assert estimate(q, 20, context, shift=1.0) is None


def test_standard_error_covers():
    # over many repetitions the estimate lies within two standard errors most of the time
    n = 300
    q = random_posteriors(n, 2)
    results = [estimate(q, n, seed=seed) for seed in range(60)]
    truth = sum(r.marginal_kl for r in results) / 60
    inside = sum(abs(r.marginal_kl - truth) < 2 * r.marginal_kl_error for r in results)
    assert inside >= 50
