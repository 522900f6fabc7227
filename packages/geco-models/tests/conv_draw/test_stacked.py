"""ConvDraw of several layers: its densities, the ways between its layers, its arguments."""

import pytest
import torch
from torch import distributions

from geco_models import StackedConvDraw
from geco_models.base import Condition

OPTIONS = {
    "two": {},
    "three": {"layers": 3, "latent_channels": (1, 2, 1)},
    "one": {"layers": 1},
    "unshared-canvas": {"shared": False, "canvas": 3},
    "planes": {"context_shape": (2, 8, 8)},
}


def small(spread=0.5, **options):
    """A model in float64 whose Gaussians differ, the more the larger the weights of the heads."""
    sizes = {"steps": 2, "layers": 2, "latent_channels": 1, "hidden": 4, "stride": 4, **options}
    draw = StackedConvDraw((1, 8, 8), **sizes).double()
    with torch.no_grad():
        for name, parameter in draw.named_parameters():
            if "head.weight" in name:
                parameter.normal_(std=spread)
    return draw


def given(draw, batch=2):
    context = None
    if draw.context_shape is not None:
        context = torch.rand(batch, *draw.context_shape, dtype=torch.float64)
    return torch.rand(batch, 1, 8, 8, dtype=torch.float64), context


@pytest.mark.parametrize("option", OPTIONS)
def test_kl_is_the_mean_log_ratio_along_the_paths(option):
    draw = small(spread=3.0, **OPTIONS[option])
    x, context = given(draw, 1)
    many = 5_000
    whole = None if context is None else context.expand(many, *context.shape[1:])
    with torch.no_grad():
        out = draw(x.expand(many, *x.shape[1:]), whole)
        posterior = draw.posterior(x.expand(many, *x.shape[1:]), whole)
        ratios = posterior.log_prob(out.latents) - draw.prior_log_prob(out.latents, whole)
    spread = (ratios - out.kl).std() / many**0.5
    assert abs(float((ratios - out.kl).mean())) < 5 * float(spread)
    assert float(out.kl.mean()) > 20 * float(spread)
    torch.testing.assert_close(out.kl_steps.sum(1), out.kl)
    torch.testing.assert_close(out.kl_per_dimension.flatten(1).sum(1), out.kl)


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_sampled_is_what_is_evaluated(option, seeded):
    """Noise drawn through the posterior comes back from the density of its latents."""
    draw = small(**OPTIONS[option])
    x, context = given(draw)
    posterior = draw.posterior(x, context)
    z = posterior.sample(seeded(0))
    noise = torch.randn(z.shape, generator=seeded(0), dtype=torch.float64)
    standard = distributions.Normal(0.0, 1.0).log_prob(noise).flatten(1).sum(1)
    # ln q(z) = ln N(noise) - ln |dz / dnoise|, which is triangular
    jacobian = torch.autograd.functional.jacobian(
        lambda n: _walked(draw, posterior, n)[0].flatten(), noise[:1]
    ).reshape(z[0].numel(), -1)
    expected = standard[0] - torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(posterior.log_prob(z)[0], expected)


def _walked(draw, posterior, noise):
    walk = draw._walk(posterior._u[:1], _first(posterior._condition), noise, drawn=False)
    return torch.stack(walk.latents, dim=1)


def _first(condition):
    return type(condition)(*(None if one is None else one[:1] for one in condition))


def test_samples_are_the_decoded_latents_of_the_prior(seeded):
    draw = small(layers=3)
    noise = torch.randn(3, *draw.latent_shape, generator=seeded(1), dtype=torch.float64)
    z = torch.stack(draw._walk(None, Condition(None, None), noise, drawn=False).latents, 1)
    torch.testing.assert_close(draw.sample(3, generator=seeded(1)), draw.decode(z))


def test_layers_speak_upwards_within_and_downwards_of_the_latents():
    """A layer's posterior reads those below, its prior the latents above; not the other way."""
    draw = small(steps=1, latent_channels=(1, 1))
    z = torch.randn(1, *draw.latent_shape, dtype=torch.float64, requires_grad=True)

    def slope(latents):
        """Of ln p(z1, z2) in z2: through p(z1 given z2) it depends on z1."""
        return torch.autograd.grad(draw.prior_log_prob(latents).sum(), latents)[0][:, :, 1]

    moved = z.detach().clone()
    moved[:, :, 0] += 1
    assert not torch.allclose(slope(z), slope(moved.requires_grad_()))


def test_every_parameter_learns_and_the_picture_is_linear_in_the_canvas(seeded):
    draw = small(layers=3, canvas=3, context_shape=(2,))
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    out = draw(x, torch.rand(2, 2).double(), seeded(0))
    (out.kl.sum() + (out.reconstruction - x).square().sum()).backward()
    for name, parameter in draw.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": 0}, ValueError, "`layers` must be at least 1"),
        ({"latent_channels": (1, 2, 3)}, ValueError, "one number or 2"),
        ({"kernel": 2}, ValueError, "`kernel` must be odd"),
        ({"steps": 1.5}, TypeError, "`steps` must be an integer"),
        ({"hidden": 0}, ValueError, "`hidden` must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        small(**options)


def test_it_learns(seeded):
    """A bright square at one of four places is painted after some steps."""
    torch.manual_seed(0)
    draw = StackedConvDraw((1, 8, 8), 2, 2, 1, 8, stride=4)
    images = torch.zeros(4, 1, 8, 8)
    for index in range(4):
        row, column = divmod(index, 2)
        images[index, 0, 4 * row + 1 : 4 * row + 3, 4 * column + 1 : 4 * column + 3] = 1
    optimizer = torch.optim.Adam(draw.parameters(), 1e-2)
    for _ in range(150):
        out = draw(images, generator=seeded(0))
        error = (out.reconstruction - images).square().sum((1, 2, 3)).mean()
        (10 * error + out.kl.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(error.detach()) < 0.1 * float(images.square().sum((1, 2, 3)).mean())
