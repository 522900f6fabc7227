r"""A hierarchical VAE: two or three layers of latents at rising resolutions, drawn top-down.

The prior is :math:`p(z_{1..L}) = \prod_l p(z_l | z_{<l})` and the posterior
:math:`q(z_{1..L} | x) = \prod_l q(z_l | x, z_{<l})`, sharing the path down, as in Very
Deep VAEs (Child, 2021, https://arxiv.org/abs/2011.10650) and, before them, Ladder VAEs (Sonderby
et al., 2016, https://arxiv.org/abs/1602.02282). The KL is the sum over layers of the exact KL
between two Gaussians, along the drawn path; `geco_models.hierarchical_vae.layers` has the formulas
of one layer.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from geco_models.base import AbstractVAE, Condition, Options
from geco_models.gaussian import standard_normal
from geco_models.hierarchical_vae.layers import Ascent, Expansion, StochasticLayer
from geco_models.likelihoods import Output
from geco_models.networks import ContextEncoder, halvings
from geco_models.output import ModelOutput
from geco_models.path_posterior import PathPosterior
from geco_models.validation import as_positive, as_shape

__all__ = ["HierarchicalPosterior", "HierarchicalVAE"]


class _Path(NamedTuple):
    """What one way down has met."""

    hidden: Tensor
    latents: Tensor
    kl: list[Tensor]  # of each layer, (batch, its latents); empty where nothing was encoded
    prior: Tensor  # log-densities, (batch,)
    posterior: Tensor


class HierarchicalVAE(AbstractVAE):
    """A VAE with several layers of latents, for images of 8 x 8 and larger.

    Args:
        shape: Channels, height and width of an image.
        latents: The latent channels of each stochastic layer, the coarsest first. The first layer
            sits at the coarsest planes (sides of at most 8), each further one at planes twice as
            fine, none at the image's own resolution.
        width: The channels of all planes.
        context_shape: The shape of one context, (C, H, W) or (F,), which enters the state at the
            top, on which priors and posteriors of all layers depend; None for an unconditional
            model.
        output: What follows the decoder's last layer, "identity" or "sigmoid".
        **options: See `Options`.

    Attributes:
        latent_shapes: Channels, height and width of each layer's latents.
        latents: The number of latent dimensions of all layers; `ModelOutput.latents` holds them
            in one vector, layer by layer.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        latents: Sequence[int] = (4, 2),
        width: int = 32,
        *,
        context_shape: Sequence[int] | None = None,
        output: Output = "identity",
        **options: Unpack[Options],
    ) -> None:
        shape = as_shape(shape, dims=(3,))
        channels = as_shape(latents, "latents")
        width = as_positive(width, "width")
        config = {
            "shape": shape,
            "latents": channels,
            "width": width,
            "context_shape": context_shape,
            "output": output,
        }
        super().__init__(shape, config, context_shape, **options)
        self.as_output(output)
        sizes = halvings(*shape[1:])
        # the place of each layer among the path up's features, which begin below the image
        self.places = [max(len(sizes) - 2 - index, 0) for index in range(len(channels))]
        self.latent_shapes = [
            (latent, *sizes[1 + place])
            for latent, place in zip(channels, self.places, strict=True)
        ]
        self.latents = sum(math.prod(size) for size in self.latent_shapes)
        blocks = 4 * len(channels) + len(sizes)
        share = blocks**-0.5

        limits = self.tolerance
        self.context_encoder = (
            None if self.context_shape is None else ContextEncoder(self.context_shape, width)
        )
        self.enter = (
            nn.Linear(self.context_encoder.features, width) if self.context_encoder else None
        )
        self.ascent = Ascent(
            shape[0], width, len(sizes) - 1, share, limits, not self.units.identity
        )
        self.top = nn.Parameter(0.1 * torch.randn(1, width, *sizes[-1]))
        self.expansions = nn.ModuleList(
            Expansion(width, size[1:], share, limits) for size in self.latent_shapes
        )
        self.layers = nn.ModuleList(
            StochasticLayer(latent, width, share, limits) for latent in channels
        )
        self.last_expansions = nn.ModuleList(
            Expansion(width, size, share, limits) for size in sizes[self.places[-1] :: -1]
        )
        self.readout = nn.Conv2d(width, self.decoded_shape[0], 3, padding=1)

    @property
    def latents_shape(self) -> tuple[int, ...]:
        """The latents of one example, (latents,)."""
        return (self.latents,)

    def embed(self, context: Tensor | None) -> Tensor | None:
        """One vector per context."""
        return None if self.context_encoder is None else self.context_encoder(context)

    def infer(
        self, u: Tensor, condition: Condition, generator: torch.Generator | None
    ) -> ModelOutput:
        """Encodes, draws the latents layer by layer, and decodes.

        `kl_steps` of the output has the KL of each layer; the KL is exact along the drawn path.
        """
        features = self.ascent(u, condition.kappa)
        noise = self._noise(u.shape[0], generator)
        path = self._descend(condition, features, noise, drawn=False)
        mean, distribution = self.observe(self._finish(path.hidden, condition))
        kl_steps = torch.stack([kl.sum(1) for kl in path.kl], dim=1)
        return ModelOutput(
            mean,
            kl_steps.sum(1),
            path.latents,
            kl_steps,
            torch.cat(path.kl, dim=1),
            distribution,
        )

    def encode(self, u: Tensor, condition: Condition) -> "HierarchicalPosterior":
        """The posterior over the latents of all layers, for each example."""
        return HierarchicalPosterior(self, u, condition)

    def draw(self, n: int, condition: Condition, generator: torch.Generator | None) -> Tensor:
        """Draws latents from the prior, layer by layer, and decodes them."""
        path = self._descend(condition, None, self._noise(n, generator), drawn=False)
        return self._finish(path.hidden, condition)

    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        """The decoder's numbers at given latents of all layers, layer by layer."""
        return self._finish(self._descend(condition, None, z, drawn=True).hidden, condition)

    def log_prior(self, z: Tensor, condition: Condition) -> Tensor:
        r"""The log-density :math:`\sum_l \ln p(z_l | z_{<l})` in nats, (batch,)."""
        return self._descend(condition, None, z, drawn=True).prior

    def _noise(self, batch: int, generator: torch.Generator | None) -> Tensor:
        return standard_normal((batch, self.latents), self.reference(), generator)

    def _descend(
        self, condition: Condition, features: list[Tensor] | None, numbers: Tensor, drawn: bool
    ) -> _Path:
        """The path down over latents (`drawn`) or noise, from the posterior where there is one."""
        batch = numbers.shape[0]
        hidden = self.top.expand(batch, *self.top.shape[1:])
        if self.enter is not None and condition.context is not None:
            hidden = hidden + self.enter(condition.context)[:, :, None, None]
        sizes = [math.prod(size) for size in self.latent_shapes]
        parts = torch.split(numbers, sizes, dim=1)
        latents, kls, log_p, log_q = [], [], [], []
        for index, (expand, layer) in enumerate(zip(self.expansions, self.layers, strict=True)):
            hidden = expand(hidden, condition.kappa)
            prior, hidden = layer.prior(hidden, condition.kappa)  # type: ignore[operator]
            source = prior
            if features is not None:
                seen = features[self.places[index]]
                source = layer.posterior(hidden, seen, condition.kappa)  # type: ignore[operator]
                kls.append(source.kl_per_dimension(prior).flatten(1))
            number = parts[index].reshape(batch, *self.latent_shapes[index])
            z = number if drawn else source.draw(number)
            log_p.append(prior.log_prob(z))
            log_q.append(source.log_prob(z))
            latents.append(z.flatten(1))
            hidden = layer(hidden, z, condition.kappa)
        return _Path(
            hidden,
            torch.cat(latents, dim=1),
            kls,
            torch.stack(log_p).sum(0),
            torch.stack(log_q).sum(0),
        )

    def _finish(self, hidden: Tensor, condition: Condition) -> Tensor:
        """The decoder's numbers, (batch, *decoded_shape)."""
        for expand in self.last_expansions:
            hidden = expand(hidden, condition.kappa)
        raw: Tensor = self.readout(nn.functional.silu(hidden))
        return raw


class HierarchicalPosterior(PathPosterior):
    r"""The batch of densities :math:`q(z_{1..L} | x) = \prod_l q(z_l | x, z_{<l})`.

    Args:
        model: The model.
        u: Checked images in the networks' units, (batch, C, H, W).
        condition: The checked context and tolerances.
    """

    def __init__(self, model: HierarchicalVAE, u: Tensor, condition: Condition) -> None:
        super().__init__(model, len(u))
        self._condition = condition
        self._features = model.ascent(u, condition.kappa)

    def _walk(self, numbers: Any, drawn: bool) -> tuple[Tensor, Tensor]:
        numbers = numbers.expand(self._batch, self._model.latents)
        path = self._model._descend(self._condition, self._features, numbers, drawn)
        return path.latents, path.posterior
