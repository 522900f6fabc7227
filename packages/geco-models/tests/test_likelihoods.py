"""Decoder likelihoods: normalised, exact in the tails, and learnt."""

import math

import pytest
import torch

from geco_models import MLPVAE, ConvVAE, DiscretizedLogistic, bits_per_dimension


@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize("loc", [-3.0, 0.0, 0.31, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 4.0])
def test_probabilities_of_all_levels_sum_to_one(levels, loc, scale):
    where = torch.linspace(0, 1, levels, dtype=torch.float64)
    density = DiscretizedLogistic(
        torch.full_like(where, loc), torch.full_like(where, scale), levels
    )
    torch.testing.assert_close(
        density.log_prob(where).exp().sum(), torch.ones((), dtype=torch.float64)
    )


def test_probabilities_are_differences_of_the_distribution_function():
    loc, scale = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.03, dtype=torch.float64)
    density = DiscretizedLogistic(loc, scale, 11)
    for k in range(11):
        upper = math.inf if k == 10 else (k / 10 + 0.05 - 0.4) / 0.03
        lower = -math.inf if k == 0 else (k / 10 - 0.05 - 0.4) / 0.03
        # the tail that is nearer keeps the digits
        sign = -1.0 if k > 5 else 1.0
        edges = torch.tensor([sign * upper, sign * lower], dtype=torch.float64)
        expected = (torch.sigmoid(edges[0]) - torch.sigmoid(edges[1])).abs().item()
        value = torch.tensor(k / 10, dtype=torch.float64)
        assert density.log_prob(value).exp().item() == pytest.approx(expected, rel=1e-9)


def test_far_tails_stay_finite_with_a_gradient():
    loc = torch.tensor([-1e4, 1e8, 0.5, 0.5], requires_grad=True)
    scale = torch.tensor([1e-3, 1e-3, 1e-6, 1e8], requires_grad=True)
    log_prob = DiscretizedLogistic(loc, scale).log_prob(torch.tensor([1.0, 0.0, 0.0, 0.5]))
    log_prob.sum().backward()
    for value in (log_prob, loc.grad, scale.grad):
        assert torch.isfinite(value).all()


def test_any_number_counts_as_its_nearest_level():
    density = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(0.1))
    level = torch.tensor(77 / 255)
    assert torch.equal(density.log_prob(level), density.log_prob(level + 0.4 / 255))
    density = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(0.1), validate_args=False)
    assert torch.equal(density.log_prob(torch.tensor(1.7)), density.log_prob(torch.tensor(1.0)))


def test_arguments_and_values_are_validated_as_in_torch():
    with pytest.raises(ValueError, match="scale"):
        DiscretizedLogistic(torch.tensor(0.3), torch.tensor(-0.1), validate_args=True)
    density = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(0.1), validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        density.log_prob(torch.tensor(1.7))


def test_draws_are_levels_with_their_frequencies():
    density = DiscretizedLogistic(torch.tensor(0.3), torch.tensor(0.2), 4)
    draws = density.sample((20000,))
    for k in range(4):
        share = (draws == torch.tensor(k / 3)).double().mean().item()
        expected = density.log_prob(torch.tensor(k / 3)).exp().item()
        error = math.sqrt(expected * (1 - expected) / 20000)
        assert abs(share - expected) < 5 * error
    assert density.expand((5,)).sample().shape == (5,)


def test_bits_per_dimension_of_uniform_levels_are_eight():
    shape = (3, 4, 4)
    log_prob = torch.full((2,), -math.log(256.0) * 48)
    torch.testing.assert_close(bits_per_dimension(log_prob, shape), torch.full((2,), 8.0))


def test_distributions_are_those_of_torch():
    x = torch.rand(4, 6)
    model = MLPVAE((6,), 3, (8,), likelihood="gaussian", input_mean=2.0, input_scale=3.0)
    out = model(x)
    sigma = 3.0 * (1e-3 + torch.nn.functional.softplus(model.likelihood.raw_scale))
    normal = torch.distributions.Normal(out.reconstruction, sigma)
    torch.testing.assert_close(out.distribution.log_prob(x), normal.log_prob(x).sum(1))
    model = MLPVAE((6,), 3, (8,), likelihood="bernoulli")
    out, binary = model(x), (x > 0.5).float()
    bernoulli = torch.distributions.Bernoulli(out.reconstruction)
    torch.testing.assert_close(
        out.distribution.log_prob(binary), bernoulli.log_prob(binary).sum(1)
    )


def test_a_pixels_own_variance_is_learnt():
    """Two halves of a vector with noise of two sizes: the scales find both."""
    sizes = torch.tensor([0.05] * 4 + [0.5] * 4)
    model = MLPVAE((8,), 1, (16,), likelihood="heteroscedastic")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(600):
        x = 1 + sizes * torch.randn(128, 8)
        out = model(x)
        loss = (out.kl - out.distribution.log_prob(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learnt = out.distribution.base_dist.scale.mean(0)
    torch.testing.assert_close(learnt, sizes, rtol=0.25, atol=0.0)


def test_half_precision_keeps_the_distribution_in_float32():
    x = torch.rand(2, 1, 8, 8)
    for name in ("bernoulli", "gaussian", "heteroscedastic", "logistic"):
        model = ConvVAE((1, 8, 8), 2, 4, likelihood=name)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        assert out.distribution.log_prob(x).dtype == torch.float32


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(ValueError, match=r"`likelihood` must be None or one .*'t'"):
        MLPVAE((6,), 3, likelihood="t")
