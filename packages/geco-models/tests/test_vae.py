"""The Gaussian VAEs: the linear one against its exact optimum, the others over all sizes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_models import MLPVAE, ConvVAE, DiagonalGaussian, LinearVAE
from geco_models.networks import halvings

EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.02], dtype=torch.float64)


def linear_gaussian_data(scale, rows=4096):
    """Rows whose sample mean and covariance are exactly the wanted ones, and the eigenvalues."""
    generator = torch.Generator().manual_seed(3)
    white = torch.randn(rows, 8, dtype=torch.float64, generator=generator)
    white = white - white.mean(0)
    left, _, right = torch.linalg.svd(white, full_matrices=False)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=generator))[0]
    mu = EIGENVALUES * scale**2
    x = math.sqrt(rows) * (left @ right) * mu.sqrt() @ rotation.T + scale
    return x.float(), mu


@pytest.mark.parametrize(
    ("distortion", "scale", "steps"),
    [
        (1.0, 0.01, 1500),
        (3.0, 100.0, 1500),
        pytest.param(0.3, 1.0, 6000, marks=pytest.mark.slow),
    ],
)
def test_linear_vae_reaches_the_exact_rate_and_distortion(distortion, scale, steps):
    """D7 at a fixed multiplier, lambda* = 1 / (2 theta) for the summed squared error."""
    x, mu = linear_gaussian_data(scale)
    low, high = 0.0, mu.max().item()
    for _ in range(100):  # theta solves sum_j min(theta, mu_j) = D
        theta = (low + high) / 2
        low, high = (
            (theta, high) if mu.clamp(max=theta).sum() < distortion * scale**2 else (low, theta)
        )
    rate = 0.5 * torch.log(mu / theta).clamp(min=0).sum().item()
    model = LinearVAE(8, 8, scale=scale)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (256,), generator=generator)]
        out = model(batch, generator=generator)
        error = (out.reconstruction - batch).square().sum(1)
        # both terms divided by the multiplier: the same optimum at every scale of the data
        loss = (error / (2 * theta) + out.kl).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        rows = x.repeat(20, 1)
        out = model(rows, generator=generator)
        reached = (out.reconstruction - rows).square().sum(1).mean().item() / scale**2
    kl = out.kl.mean().item()
    assert kl == pytest.approx(rate, rel=0.01)
    assert reached == pytest.approx(distortion, rel=0.02)
    # nothing is below the optimum of the whole objective, and the model is close to it
    weight = scale**2 / (2 * theta)
    assert 0.998 < (weight * reached + kl) / (weight * distortion + rate) < 1.005
    used = model.posterior(x).log_variance.mean(0) < -0.1
    assert used.sum() == (mu > theta * 1.2).sum()


def test_linear_vae_is_the_same_in_any_units(seeded):
    one, hundred = LinearVAE(4, 2), LinearVAE(4, 2, scale=100.0)
    hundred.load_state_dict(one.state_dict())
    x = torch.randn(5, 4)
    a, b = one(x, generator=seeded(0)), hundred(100 * x, generator=seeded(0))
    torch.testing.assert_close(b.reconstruction, 100 * a.reconstruction)
    torch.testing.assert_close(b.kl, a.kl)


def test_linear_vae_takes_a_shape_as_its_features(seeded):
    flat, image = LinearVAE(12, 2), LinearVAE((1, 3, 4), 2)
    image.load_state_dict(flat.state_dict())
    x = torch.rand(5, 1, 3, 4)
    out = image(x, generator=seeded(0))
    expected = flat(x.flatten(1), generator=seeded(0)).reconstruction.view(5, 1, 3, 4)
    assert torch.equal(out.reconstruction, expected)


@given(
    channels=st.integers(1, 4),
    height=st.integers(8, 70),
    width=st.integers(8, 70),
    features=st.integers(1, 9),
)
@settings(deadline=None, max_examples=25)
def test_conv_vae_takes_images_of_every_size(channels, height, width, features):
    model = ConvVAE((channels, height, width), 3, features)
    x = torch.rand(2, channels, height, width)
    out = model(x)
    assert out.reconstruction.shape == x.shape
    assert out.latents.shape == (2, 3)
    out.reconstruction.sum().backward()
    assert model.decoder.stem.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("size", "stages"),
    [(8, [8, 4]), (9, [9, 5]), (28, [28, 14, 7]), (32, [32, 16, 8]), (64, [64, 32, 16, 8])],
)
def test_images_are_halved_until_eight(size, stages):
    assert halvings(size, size) == [(stage, stage) for stage in stages]


@pytest.mark.parametrize("side", [28, 32, 64])
def test_every_pixel_depends_on_the_latents_and_the_latents_on_every_pixel(side):
    model = ConvVAE((1, side, side), 4, 8).double()
    x = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    model.posterior(x).mean.sum().backward()
    assert (x.grad != 0).all()
    z = torch.randn(2, 4, dtype=torch.float64)
    first, second = model.decode(z)
    assert (first != second).all()


def test_context_reaches_encoder_and_decoder(seeded):
    for model in (
        ConvVAE((1, 8, 8), 4, 8, context_shape=(1, 9, 9)),
        ConvVAE((1, 8, 8), 4, 8, context_shape=(3,)),
        ConvVAE((1, 8, 8), 4, 8, context_shape=(3, 2, 2)),  # too small for convolutions
        MLPVAE((5,), 4, context_shape=(3,)),
    ):
        x, z = torch.rand(2, *model.shape), torch.randn(2, 4)
        a, b = torch.rand(2, 2, *model.context_shape)
        assert not torch.equal(model.posterior(x, a).mean, model.posterior(x, b).mean)
        assert not torch.equal(model.decode(z, a), model.decode(z, b))


def test_output_activation():
    z = 100 * torch.randn(50, 4)
    bounded = ConvVAE((1, 8, 8), 4, 8, output="sigmoid")
    free = ConvVAE((1, 8, 8), 4, 8)
    free.load_state_dict(bounded.state_dict())
    assert 0 <= bounded.decode(z).min() < bounded.decode(z).max() <= 1
    torch.testing.assert_close(torch.sigmoid(free.decode(z)), bounded.decode(z))


def test_sample_is_the_decoder_of_standard_normal_latents(seeded):
    model = MLPVAE((6,), 3, (8,))
    z = torch.randn(10, 3, generator=seeded(4))
    assert torch.equal(model.sample(10, generator=seeded(4)), model.decode(z).detach())
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(model.prior_log_prob(z), expected)


def test_output_holds_the_posterior_kl_and_the_decoded_latents(seeded):
    model = ConvVAE((1, 8, 8), 4, 8)
    x = torch.rand(3, 1, 8, 8)
    out = model(x, generator=seeded(0))
    posterior = model.posterior(x)
    assert isinstance(posterior, DiagonalGaussian)
    assert torch.equal(out.kl, posterior.kl())
    assert torch.equal(out.latents, posterior.sample(seeded(0)))
    assert torch.equal(out.reconstruction, model.decode(out.latents))
    assert out.kl_steps is None


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ConvVAE((1, 7, 28)), ValueError, "at least 8 x 8 .* got 7 x 28"),
        (
            lambda: ConvVAE((28,)),
            ValueError,
            r"must have 2 or 3 or 4 dimensions, got \(28,",
        ),
        (lambda: ConvVAE((1, 28, 28.0)), TypeError, "`shape` must be an integer"),
        (lambda: ConvVAE(28), TypeError, "`shape` must be a sequence of integers, got 28"),
        (lambda: ConvVAE(latents=0), ValueError, "`latents` must be at least 1, got 0"),
        (lambda: ConvVAE(width=-1), ValueError, "`width` must be at least 1, got -1"),
        (lambda: ConvVAE(output="relu"), ValueError, "`output` must be 'identity' or 'sigmoid'"),
        (
            lambda: ConvVAE(context_shape=(3, 4)),
            ValueError,
            r"`context_shape` must have 1 or 3 dimensions, got \(3, 4\)",
        ),
        (lambda: MLPVAE((4,), 2, ()), ValueError, "`hidden` must have at least 1"),
        (lambda: MLPVAE((4,), 2, 400), TypeError, "`hidden` must be a sequence of integers"),
        (lambda: LinearVAE(0, 2), ValueError, "`features` must be at least 1, got 0"),
        (lambda: LinearVAE("8", 2), TypeError, "`features` must be a sequence of integers"),
        (lambda: LinearVAE(4, 2.5), TypeError, "`latents` must be an integer"),
        (lambda: LinearVAE(4, 2, scale=0.0), ValueError, "`scale` must be a positive finite"),
        (lambda: LinearVAE(4, 2, scale=math.inf), ValueError, "`scale` must be a positive finite"),
    ],
)
def test_wrong_arguments_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_wrong_latents_are_refused():
    model = ConvVAE((1, 8, 8), 4, 8)
    for call in (model.decode, model.prior_log_prob):
        with pytest.raises(ValueError, match=r"`z` must be \(batch, 4\) .* got \(2, 5\)"):
            call(torch.zeros(2, 5))
        with pytest.raises(TypeError, match="`z` must be floating point"):
            call(torch.zeros(2, 4).long())
