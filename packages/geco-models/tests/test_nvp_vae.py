"""VAE+NVP: the flow where it is said to be, and a KL estimate that is unbiased."""

import pytest
import torch

from geco_models import NVPVAE, DiagonalGaussian
from geco_models.gaussian import standard_log_prob
from geco_models.nvp_vae import FlowPosterior

SMALL = {"couplings": 3, "flow_hidden": (16,), "width": 8, "hidden": (16,)}


def bend(model, amount=0.3):
    with torch.no_grad():
        for parameter in model.flow.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    return model


def straighten(model):
    """Sets every coupling to the identity."""
    with torch.no_grad():
        for coupling in model.flow.couplings:
            coupling.weights[-1].zero_()
            coupling.biases[-1].zero_()
    return model


def test_flow_prior_without_a_flow_estimates_the_gaussian_kl(seeded):
    model = straighten(NVPVAE((6,), 4, "prior", **SMALL))
    x = torch.randn(1, 6)
    exact = model.posterior(x).kl().item()
    with torch.no_grad():
        kl = model(x.expand(100_000, 6), generator=seeded(0)).kl
    assert abs(kl.mean().item() - exact) < 4 * kl.std().item() / len(kl) ** 0.5


def test_flow_posterior_without_a_flow_is_the_gaussian(seeded):
    model = straighten(NVPVAE((6,), 4, "posterior", **SMALL))
    x = torch.randn(50, 6)
    posterior = model.posterior(x)
    z = posterior.sample(seeded(0))
    torch.testing.assert_close(z, posterior.base.sample(seeded(0)))
    torch.testing.assert_close(posterior.log_prob(z), posterior.base.log_prob(z))


def test_samples_pass_through_the_flow_prior(seeded):
    model = bend(NVPVAE((6,), 4, "prior", **SMALL))
    noise = torch.randn(20, 4, generator=seeded(1))
    z, _ = model.flow.inverse(noise)
    assert (z - noise).abs().max() > 0.1
    torch.testing.assert_close(model.sample(20, generator=seeded(1)), model.decode(z).detach())
    torch.testing.assert_close(model.prior_log_prob(z), model.flow.log_prob(z))


def test_samples_of_a_flow_posterior_model_use_the_normal_prior(seeded):
    model = bend(NVPVAE((6,), 4, "posterior", **SMALL))
    z = torch.randn(20, 4, generator=seeded(1))
    torch.testing.assert_close(model.sample(20, generator=seeded(1)), model.decode(z).detach())
    torch.testing.assert_close(model.prior_log_prob(z), standard_log_prob(z))


@pytest.mark.parametrize("place", ["prior", "posterior"])
def test_kl_is_the_log_ratio_at_the_latents(place, seeded):
    model = bend(NVPVAE((1, 8, 8), 4, place, context_shape=(2,), **SMALL)).double()
    x, c = torch.rand(5, 1, 8, 8).double(), torch.rand(5, 2).double()
    out = model(x, c, seeded(0))
    posterior = model.posterior(x, c)
    assert isinstance(posterior, DiagonalGaussian if place == "prior" else FlowPosterior)
    torch.testing.assert_close(out.latents, posterior.sample(seeded(0)))
    ratio = posterior.log_prob(out.latents) - model.prior_log_prob(out.latents, c)
    torch.testing.assert_close(out.kl, ratio)
    torch.testing.assert_close(out.reconstruction, model.decode(out.latents, c))


def test_flow_posterior_density_integrates_to_one():
    model = bend(NVPVAE((3,), 2, "posterior", **SMALL), 0.2).double()
    posterior = model.posterior(torch.randn(1, 3).double())
    axis = torch.linspace(-30, 30, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    rows = FlowPosterior(
        DiagonalGaussian(
            posterior.base.mean.expand(len(grid), 2),
            posterior.base.log_variance.expand(len(grid), 2),
        ),
        model.flow,
        posterior.context.expand(len(grid), 2),
    )
    with torch.no_grad():
        mass = rows.log_prob(grid).exp().sum().item() * (axis[1] - axis[0]).item() ** 2
    assert mass == pytest.approx(1.0, abs=5e-3)


def test_flow_posterior_depends_on_the_input_beyond_its_gaussian():
    model = bend(NVPVAE((3,), 2, "posterior", **SMALL))
    posterior = model.posterior(torch.randn(2, 3))
    z = torch.randn(1, 2).expand(2, 2)
    _, log_det = model.flow(z, posterior.context)
    assert (log_det[0] - log_det[1]).abs() > 1e-4


def test_conditional_flow_prior_depends_on_the_context():
    model = bend(NVPVAE((3,), 2, "prior", context_shape=(4,), **SMALL))
    z = torch.randn(1, 2).expand(2, 2)
    values = model.prior_log_prob(z, torch.randn(2, 4))
    assert (values[0] - values[1]).abs() > 1e-4


@pytest.mark.parametrize("place", ["prior", "posterior"])
def test_kl_gradient_agrees_with_finite_differences(place, seeded):
    model = bend(NVPVAE((3,), 2, place, **SMALL), 0.1).double()
    x = torch.randn(4, 3).double()
    model(x, generator=seeded(0)).kl.sum().backward()
    parameters = dict(model.named_parameters())
    for name in (
        "encoder.network.0.weight",
        "flow.couplings.0.weights.0",
        "flow.couplings.2.biases.1",
    ):
        parameter, step = parameters[name], 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.view(-1)[0] += sign * step
                values.append(model(x, generator=seeded(0)).kl.sum().item())
                parameter.view(-1)[0] -= sign * step
        slope = (values[0] - values[1]) / (2 * step)
        assert parameter.grad.view(-1)[0].item() == pytest.approx(slope, rel=1e-5, abs=1e-8), name


def test_small_images_and_vectors_get_dense_networks():
    for shape in ((5,), (1, 4, 4), (3, 2)):
        model = NVPVAE(shape, 3, **SMALL)
        assert model(torch.rand(2, *shape)).reconstruction.shape == (2, *shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flow": "both"}, "`flow` must be 'prior' or 'posterior', got 'both'"),
        ({"latents": 1}, "`latents` must be at least 2, got 1"),
        ({"couplings": 0}, "`couplings` must be at least 1, got 0"),
        ({"flow_hidden": (8, 0)}, "`hidden` must be at least 1, got 0"),
        ({"output": "tanh"}, "`output` must be 'identity' or 'sigmoid', got 'tanh'"),
        ({"context_shape": ()}, "`context_shape` must have 1 or 3 dimensions"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NVPVAE(**{"shape": (1, 8, 8), **arguments})
