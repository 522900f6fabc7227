"""The negative log-likelihood as a constraint: closed forms, units, masks."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, NegativeBinomial, Normal

from geco_core import GECO, DiscretizedLogistic, NegativeLogLikelihood, ReconstructionError


def test_nats_and_bits():
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    p = torch.tensor([[0.5, 0.25, 0.9], [0.1, 0.2, 0.3]])
    nats = torch.tensor(
        [
            -math.log(0.5 * 0.75 * 0.9),
            -math.log(0.9 * 0.8 * 0.7),
        ]
    )
    torch.testing.assert_close(NegativeLogLikelihood(2.0)(x, Bernoulli(p)), nats - 2.0)
    bits = NegativeLogLikelihood(1.5, unit="bits per dim")(x, Bernoulli(p))
    torch.testing.assert_close(bits, nats / (3 * math.log(2)) - 1.5)
    counts = torch.tensor([[3.0, 0.0]])
    rule = NegativeBinomial(torch.tensor([[2.0, 5.0]]), probs=torch.tensor([[0.3, 0.6]]))
    # P(3) with r = 2 is C(4, 3) p^3 (1 - p)^2
    expected = -math.log(4 * 0.3**3 * 0.7**2) - 5 * math.log(0.4)
    torch.testing.assert_close(
        NegativeLogLikelihood(0.0)(counts, rule), torch.tensor([expected]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("unit", ["nats", "bits per dim"])
def test_of_a_normal_distribution_it_is_the_reconstruction_error(unit):
    """Relative violations, and so the losses and multipliers, are those of RE."""
    kappa, d = 0.3, 6
    x, g = torch.rand(5, 2, 3), torch.rand(5, 2, 3, requires_grad=True)
    nats = d / 2 * (1 + math.log(2 * math.pi * kappa**2))
    allowed = nats if unit == "nats" else nats / (d * math.log(2))
    one = GECO(NegativeLogLikelihood(allowed, unit=unit))
    other = GECO(ReconstructionError(kappa))
    kl = torch.rand(5)
    for _ in range(3):
        a, b = one(kl, x, Normal(g, kappa)), other(kl, x, g)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        one.step()
        other.step()
    torch.testing.assert_close(
        one.info.relative_multiplier, other.info.relative_multiplier, rtol=1e-3, atol=0
    )
    # beta of a decoder of standard deviation kappa, against beta of unit variance (D1)
    torch.testing.assert_close(one.info.beta * kappa**2, other.info.beta, rtol=1e-3, atol=0)


def test_masked_elements_are_like_the_others():
    x = torch.tensor([[1.0, math.nan], [math.nan, math.nan]])
    mask = ~x.isnan()
    logits = torch.zeros(2, 2, requires_grad=True)
    objective = GECO(NegativeLogLikelihood(0.0))
    loss = objective(torch.ones(2), x, Bernoulli(logits=logits), mask=mask)
    assert objective.info.constraint.item() == pytest.approx(2 * math.log(2))
    loss.backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().max() == 0


def test_states(caplog):
    source, target = NegativeLogLikelihood(3.0), NegativeLogLikelihood(1.0)
    source(torch.ones(1, 8), Bernoulli(torch.full((1, 8), 0.5)))
    target.load_state_dict(source.state_dict())
    assert (target.at_most, target.scale) == (3.0, 4.0)
    with pytest.raises(ValueError, match="bits per dim"):
        NegativeLogLikelihood(1.0, unit="bits per dim").load_state_dict(source.state_dict())


def test_bad_input():
    good = NegativeLogLikelihood(0.0)
    with pytest.raises(TypeError, match="Distribution, got Tensor"):
        good(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"shape of the distribution, \(2, 3\)"):
        good(torch.ones(2, 1), Bernoulli(torch.full((2, 3), 0.5)))
    joint = Independent(Normal(torch.zeros(2, 3), 1.0), 1)
    with pytest.raises(ValueError, match="single elements"):
        good(torch.ones(2, 3), joint, mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="`unit`"):
        NegativeLogLikelihood(0.0, unit="bits")
    with pytest.raises(ValueError, match="`at_most` must be finite"):
        NegativeLogLikelihood(math.nan)


class TestDiscretizedLogistic:
    @pytest.mark.parametrize("scale", [1e-4, 0.01, 0.3, 20.0])
    @pytest.mark.parametrize("loc", [-3.0, 0.0, 0.4999, 1.0, 5.0])
    def test_masses_add_up_to_1(self, loc, scale):
        rule = DiscretizedLogistic(torch.tensor(loc).double(), scale)
        levels = torch.linspace(0, 1, 256, dtype=torch.float64)
        assert rule.log_prob(levels).exp().sum().item() == pytest.approx(1.0, rel=1e-9)

    def test_is_the_difference_of_the_distribution_function(self):
        rule = DiscretizedLogistic(0.3, 0.2, low=-1.0, high=1.0, levels=5)
        edges = torch.tensor([-torch.inf, -0.75, -0.25, 0.25, 0.75, torch.inf])
        cumulated = torch.sigmoid((edges - 0.3) / 0.2)
        expected = cumulated.diff().log()
        torch.testing.assert_close(rule.log_prob(torch.linspace(-1, 1, 5)), expected)

    def test_gradients_far_away_are_finite_and_pull_back(self):
        loc = torch.tensor([-50.0, 50.0], requires_grad=True)
        rule = DiscretizedLogistic(loc, 0.01)
        value = rule.log_prob(torch.tensor([0.5, 0.5])).sum()
        assert value.isfinite()
        value.backward()
        assert loc.grad[0] > 0 > loc.grad[1]

    def test_samples(self):
        torch.manual_seed(0)
        rule = DiscretizedLogistic(torch.tensor([0.2, 0.8]), 0.05, levels=11)
        drawn = rule.sample((20_000,))
        shares = (drawn[:, 0:1] == torch.linspace(0, 1, 11)).double().mean(0)
        first = DiscretizedLogistic(0.2, 0.05, levels=11)
        expected = first.log_prob(torch.linspace(0, 1, 11)).exp().double()
        torch.testing.assert_close(shares, expected, atol=0.02, rtol=0)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="`low` must be below"):
            DiscretizedLogistic(0.0, 1.0, low=1.0, high=0.0)
        with pytest.raises(ValueError, match="`levels`"):
            DiscretizedLogistic(0.0, 1.0, levels=1)
        with pytest.raises(ValueError, match="scale"):
            DiscretizedLogistic(0.0, -1.0, validate_args=True)  # torch.compile changes the default
