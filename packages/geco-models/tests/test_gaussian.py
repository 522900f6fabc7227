"""Diagonal Gaussians against torch.distributions, Monte Carlo and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from geco_models import DiagonalGaussian
from geco_models.gaussian import LOG_VARIANCE_BOUND, bound_log_variance, standard_log_prob


@pytest.fixture
def pair():
    shape = (5, 3, 2)
    made = [
        DiagonalGaussian(torch.randn(shape).double(), torch.randn(shape).double()) for _ in "qp"
    ]
    return made[0], made[1]


def as_normal(gaussian):
    return Normal(gaussian.mean, torch.exp(0.5 * gaussian.log_variance))


def test_kl_equals_torch_distributions(pair):
    q, p = pair
    standard = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = kl_divergence(as_normal(q), standard).sum((1, 2))
    torch.testing.assert_close(q.kl(), expected)
    expected = kl_divergence(as_normal(q), as_normal(p)).sum((1, 2))
    torch.testing.assert_close(q.kl(p), expected)


def test_kl_equals_monte_carlo(pair):
    q, p = pair
    rows = 100_000
    for i in range(2):
        many = [
            DiagonalGaussian(g.mean[i].expand(rows, 3, 2), g.log_variance[i].expand(rows, 3, 2))
            for g in (q, p)
        ]
        z = many[0].sample()
        ratio = many[0].log_prob(z) - many[1].log_prob(z)
        error = ratio.std().item() / math.sqrt(rows)
        assert abs(ratio.mean().item() - q.kl(p)[i].item()) < 4 * error
        ratio = many[0].log_prob(z) - standard_log_prob(z)
        error = ratio.std().item() / math.sqrt(rows)
        assert abs(ratio.mean().item() - q.kl()[i].item()) < 4 * error


def test_log_prob_equals_torch_distributions(pair):
    q, _ = pair
    z = torch.randn(5, 3, 2).double()
    torch.testing.assert_close(q.log_prob(z), as_normal(q).log_prob(z).sum((1, 2)))
    expected = Normal(0.0, 1.0).log_prob(z).sum((1, 2))
    torch.testing.assert_close(standard_log_prob(z), expected)


def test_kl_of_equal_gaussians_is_exactly_zero(pair):
    q, _ = pair
    assert torch.equal(q.kl(q), torch.zeros(5).double())
    zeros = torch.zeros(4, 3)
    assert torch.equal(DiagonalGaussian(zeros, zeros).kl(), torch.zeros(4))


def test_kl_keeps_its_digits_near_zero():
    delta = torch.full((1, 1), 1e-3)
    exact = 0.5 * (math.expm1(1e-3) - 1e-3)
    assert DiagonalGaussian(torch.zeros(1, 1), delta).kl().item() == pytest.approx(exact, rel=2e-4)


def test_sample_has_the_stated_moments_and_gradients():
    mean = torch.tensor([[1.0, -2.0]], requires_grad=True)
    log_variance = torch.tensor([[0.5, -3.0]], requires_grad=True)
    rows = 200_000
    z = DiagonalGaussian(mean.expand(rows, 2), log_variance.expand(rows, 2)).sample()
    torch.testing.assert_close(z.mean(0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), torch.exp(log_variance[0]), atol=0, rtol=0.02)
    z.square().sum(1).mean().backward()  # E z^2 = m^2 + e^l
    torch.testing.assert_close(mean.grad, 2 * mean.detach(), atol=0.03, rtol=0)
    torch.testing.assert_close(log_variance.grad, log_variance.exp().detach(), atol=0.02, rtol=0)


@given(st.floats(-(2.0**100), 2.0**100, width=32))
@settings(deadline=None)
def test_bounded_log_variance_never_overflows(raw):
    value = torch.tensor([[raw]], requires_grad=True)
    bounded = bound_log_variance(value)
    gaussian = DiagonalGaussian(torch.zeros(1, 1), bounded)
    (gaussian.kl() + gaussian.log_prob(torch.ones(1, 1))).sum().backward()
    assert abs(bounded.item()) <= LOG_VARIANCE_BOUND
    assert torch.isfinite(torch.exp(bounded)).all()
    assert torch.isfinite(torch.exp(-bounded)).all()
    assert torch.isfinite(value.grad).all()


def test_bound_is_increasing_odd_and_nearly_the_identity_inside():
    raw = torch.linspace(-60, 60, 601, dtype=torch.float64, requires_grad=True)
    bounded = bound_log_variance(raw)
    (slope,) = torch.autograd.grad(bounded.sum(), raw)
    assert (slope > 0).all()
    torch.testing.assert_close(bounded.flip(0), -bounded)
    inside = raw.abs() < LOG_VARIANCE_BOUND / 8
    torch.testing.assert_close(bounded[inside], raw[inside], rtol=0.006, atol=1e-12)


def test_half_precision_statistics_become_float32():
    raw = torch.randn(3, 4, dtype=torch.bfloat16)
    gaussian = DiagonalGaussian.from_raw(raw)
    assert gaussian.mean.dtype == gaussian.log_variance.dtype == torch.float32
    assert gaussian.sample().dtype == gaussian.kl().dtype == torch.float32
    assert DiagonalGaussian.from_raw(raw.double()).kl().dtype == torch.float64


def test_from_raw_splits_along_the_channels():
    raw = torch.randn(2, 6, 4, 4)
    gaussian = DiagonalGaussian.from_raw(raw)
    assert torch.equal(gaussian.mean, raw[:, :3])
    assert torch.equal(gaussian.log_variance, bound_log_variance(raw[:, 3:]))
    assert "shape=(2, 3, 4, 4)" in repr(gaussian)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"`mean` \(2, 3\) and `log_variance` \(2, 4\)"):
        DiagonalGaussian(torch.zeros(2, 3), torch.zeros(2, 4))
