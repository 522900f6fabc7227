"""What VAEs with a Gaussian posterior and a standard normal prior share, networks aside."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from geco_models.base import AbstractVAE, Condition, Options
from geco_models.gaussian import DiagonalGaussian, standard_log_prob, standard_normal
from geco_models.output import ModelOutput
from geco_models.validation import as_positive

__all__ = ["AbstractGaussianVAE"]


class AbstractGaussianVAE(AbstractVAE):
    r"""A VAE with :math:`q(z|x) = N(m(x), \operatorname{diag} e^{l(x)})` and prior N(0, I).

    The KL divergence is exact. A subclass writes `encode` and `generate`, and `embed` where the
    context passes through a network first, which then runs once for both.

    Args:
        shape: The shape of one example.
        latents: The number of latent dimensions.
        config: The constructor arguments.
        context_shape: The shape of one context; None for an unconditional model.
        **options: See `Options`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latents: int,
        config: Mapping[str, Any],
        context_shape: Sequence[int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(shape, config, context_shape, **options)
        self.latents = as_positive(latents, "latents")

    def embed(self, context: Tensor | None) -> Tensor | None:
        """What encoder and decoder read of a checked context; by default the context itself.

        Args:
            context: The context, (batch, *context_shape), or None.

        Returns:
            The embedding, with one row per example, or None.
        """
        return context

    @abstractmethod
    def encode(self, u: Tensor, condition: Condition) -> DiagonalGaussian:
        """The posteriors of checked data in the networks' units.

        Args:
            u: The standardised data, (batch, *shape).
            condition: What `embed` made of the context, and the tolerances.

        Returns:
            Gaussians over (batch, latents).
        """

    @abstractmethod
    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        """The decoder's numbers at checked latents of the weights' type.

        Args:
            z: Latents, (batch, latents).
            condition: What `embed` made of the context, and the tolerances.

        Returns:
            The numbers, (batch, *decoded_shape), of which `observe` makes means.
        """

    def decode(
        self, z: Tensor, context: Tensor | None = None, *, kappa: Tensor | float | None = None
    ) -> Tensor:
        """The decoder's mean :math:`g(z)`.

        Args:
            z: Latents, (batch, latents).
            context: The context, for a conditional model only.
            kappa: The tolerances, for a model with a `tolerance` only.

        Returns:
            The means, (batch, *shape).

        Raises:
            TypeError: If `z` is not floating point.
            ValueError: If a shape is wrong, or the context is missing or superfluous.
        """
        self.check_latents(z, (self.latents,))
        condition = self._condition(context, kappa, z.shape[0])
        return self.observe(self.generate(self.like_weights(z), condition))[0]

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        kappa: Tensor | float | None = None,
    ) -> ModelOutput:
        """Encodes, draws one latent per example, and decodes; the KL divergence is exact."""
        posterior, condition = self._posterior(x, context, kappa)
        z = posterior.sample(generator)
        mean, distribution = self.observe(self.generate(self.like_weights(z), condition))
        kl = posterior.kl_per_dimension()
        return ModelOutput(mean, kl.sum(1), z, None, kl, distribution)

    def posterior(
        self, x: Tensor, context: Tensor | None = None, *, kappa: Tensor | float | None = None
    ) -> DiagonalGaussian:
        """The Gaussian posterior of each example."""
        return self._posterior(x, context, kappa)[0]

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        kappa: Tensor | float | None = None,
    ) -> Tensor:
        """Decodes draws from N(0, I); no gradients."""
        n = as_positive(n, "n")
        condition = self._condition(context, kappa, n)
        z = standard_normal((n, self.latents), self.reference(), generator)
        return self.observe(self.generate(self.like_weights(z), condition))[0]

    def prior_log_prob(
        self, z: Tensor, context: Tensor | None = None, *, kappa: Tensor | float | None = None
    ) -> Tensor:
        """The log-density of N(0, I) in nats, (batch,); the context is checked, then ignored."""
        self.check_latents(z, (self.latents,))
        self.check_context(context, z.shape[0])
        self.check_kappa(kappa, z.shape[0])
        return standard_log_prob(z)

    def _condition(
        self, context: Tensor | None, kappa: Tensor | float | None, batch: int
    ) -> Condition:
        embedding = self.embed(self.check_context(context, batch))
        return Condition(embedding, self.check_kappa(kappa, batch))

    def _posterior(
        self, x: Tensor, context: Tensor | None, kappa: Tensor | float | None
    ) -> tuple[DiagonalGaussian, Condition]:
        x = self.check_input(x)
        condition = self._condition(context, kappa, x.shape[0])
        return self.encode(self.units(x), condition), condition
