"""The hierarchical VAE beyond the contract: its layers, its densities, what it learns."""

import math

import pytest
import torch
from torch import distributions

from geco_models import HierarchicalVAE


@pytest.fixture
def model():
    """A model of three layers, in float64, whose Gaussians differ from N(0, I)."""
    model = HierarchicalVAE((2, 16, 18), (3, 2, 1), 6, context_shape=(4,)).double()
    with torch.no_grad():
        for layer in model.layers:
            layer.prior_head.weight.mul_(20)
            layer.posterior_head.weight.mul_(20)
    return model


def data(model, batch=3):
    return (
        torch.rand(batch, *model.shape, dtype=torch.float64),
        torch.rand(batch, 4, dtype=torch.float64),
    )


def test_each_layer_has_planes_twice_as_fine_but_never_the_images_own(model):
    assert model.latent_shapes == [(3, 4, 5), (2, 8, 9), (1, 8, 9)]
    assert model.latents == sum(math.prod(size) for size in model.latent_shapes)
    assert HierarchicalVAE((1, 28, 28), (4, 2), 8).latent_shapes == [(4, 7, 7), (2, 14, 14)]


def test_kl_is_that_of_torch_distributions_layer_by_layer(model, seeded):
    """The way down replayed with torch.distributions, one layer after the other."""
    x, context = data(model)
    out = model(x, context, generator=seeded(0))
    features = model.ascent(x)
    hidden = model.top + model.enter(model.context_encoder(context))[:, :, None, None]
    parts = out.latents.split([math.prod(size) for size in model.latent_shapes], dim=1)
    for index, layer in enumerate(model.layers):
        hidden = model.expansions[index](hidden)
        p, hidden = layer.prior(hidden)
        q = layer.posterior(hidden, features[model.places[index]])
        kl = distributions.kl_divergence(
            distributions.Normal(q.mean, (0.5 * q.log_variance).exp()),
            distributions.Normal(p.mean, (0.5 * p.log_variance).exp()),
        )
        torch.testing.assert_close(out.kl_steps[:, index], kl.flatten(1).sum(1))
        hidden = layer(hidden, parts[index].reshape(3, *model.latent_shapes[index]))
    for expansion in model.last_expansions:
        hidden = expansion(hidden)
    mean = model.readout(torch.nn.functional.silu(hidden))
    torch.testing.assert_close(mean, out.reconstruction)


def test_reconstruction_is_the_decoded_latents(model, seeded):
    x, context = data(model)
    out = model(x, context, generator=seeded(0))
    torch.testing.assert_close(model.decode(out.latents, context), out.reconstruction)


def test_posterior_depends_on_the_latents_above(model):
    x, context = data(model)
    posterior = model.posterior(x, context)
    z = posterior.sample()
    first = math.prod(model.latent_shapes[0])
    with torch.no_grad():
        moved = z.clone()
        moved[:, :first] += 1.0
        # only the terms of the lower layers see more than their own shift
        terms = []
        for latents in (z, moved):
            features = model.ascent(x)
            path = model._descend(posterior._condition, features, latents, drawn=True)
            terms.append(torch.cat(path.kl[1:], dim=1))
    assert not torch.allclose(*terms)


def test_one_row_of_latents_serves_all_examples(model):
    x, context = data(model)
    posterior = model.posterior(x, context)
    z = posterior.sample()[:1]
    torch.testing.assert_close(
        posterior.log_prob(z), posterior.log_prob(z.expand(3, model.latents))
    )
    with pytest.raises(ValueError, match=r"`z` must have 3 rows \(one per example\) or 1, got 2"):
        posterior.log_prob(z.expand(2, model.latents))


def test_latents_drawn_from_the_prior_get_back_their_density(model):
    _, context = data(model, 1)
    rows = context.expand(5, 4)
    noise = torch.randn(5, model.latents, dtype=torch.float64)
    path = model._descend(model._condition(rows, None, 5), None, noise, drawn=False)
    torch.testing.assert_close(model.prior_log_prob(path.latents, rows), path.prior)
    first = model.latent_shapes[0]
    hidden = model.expansions[0](
        model.top + model.enter(model.context_encoder(rows))[:, :, None, None]
    )
    p, _ = model.layers[0].prior(hidden)
    z = p.mean + (0.5 * p.log_variance).exp() * noise[:, : math.prod(first)].reshape(5, *first)
    torch.testing.assert_close(path.latents[:, : math.prod(first)], z.flatten(1))


def test_learns_and_uses_its_layers():
    """Images of two factors, a place and a texture: the loss falls and both layers carry KL."""
    generator = torch.Generator().manual_seed(0)
    place = torch.randint(0, 8, (256,), generator=generator)
    texture = torch.rand(256, 1, 16, 16, generator=generator)
    x = 0.3 * texture
    for index, row in enumerate(place.tolist()):
        x[index, :, row : row + 6, row : row + 6] += 0.6
    model = HierarchicalVAE((1, 16, 16), (2, 1), 12)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for step in range(120):
        rows = slice(64 * (step % 4), 64 * (step % 4) + 64)
        out = model(x[rows], generator=generator)
        error = (out.reconstruction - x[rows]).square().flatten(1).sum(1)
        loss = (out.kl + error / (2 * 0.1**2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.25 * sum(losses[:4]) / 4 * 10
    assert (out.kl_steps.mean(0) > 0.5).all()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: HierarchicalVAE((1, 7, 28)), ValueError, "at least 8 x 8 .* got 7 x 28"),
        (lambda: HierarchicalVAE((28,)), ValueError, "must have 3 dimensions"),
        (lambda: HierarchicalVAE(latents=4), TypeError, "`latents` must be a sequence"),
        (lambda: HierarchicalVAE(latents=()), ValueError, "`latents` must have at least 1"),
        (lambda: HierarchicalVAE(latents=(4, 0)), ValueError, "`latents` must be at least 1"),
        (lambda: HierarchicalVAE(output="tanh"), ValueError, "'identity' or 'sigmoid'"),
    ],
)
def test_wrong_arguments_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
