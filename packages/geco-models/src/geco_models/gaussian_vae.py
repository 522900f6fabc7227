"""What VAEs with a Gaussian posterior and a standard normal prior share, networks aside."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

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
    context passes through a network first.

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

    @abstractmethod
    def encode(self, u: Tensor, condition: Condition) -> DiagonalGaussian:
        """The posteriors of checked data in the networks' units.

        Args:
            u: The standardised data, (batch, *shape).
            condition: What `embed` made of the context, and the tolerances.

        Returns:
            Gaussians over (batch, latents).
        """

    @property
    def latents_shape(self) -> tuple[int, ...]:
        """The latents of one example, (latents,)."""
        return (self.latents,)

    def infer(
        self, u: Tensor, condition: Condition, generator: torch.Generator | None
    ) -> ModelOutput:
        """Encodes, draws one latent per example, and decodes; the KL divergence is exact."""
        posterior = self.encode(u, condition)
        z = posterior.sample(generator)
        mean, distribution = self.observe(self.generate(self.like_weights(z), condition))
        kl = posterior.kl_per_dimension()
        return ModelOutput(mean, kl.sum(1), z, None, kl, distribution)

    if TYPE_CHECKING:

        def posterior(self, *args: Any, **kwargs: Any) -> DiagonalGaussian:
            """The Gaussian posterior of each example."""

    def draw(self, n: int, condition: Condition, generator: torch.Generator | None) -> Tensor:
        """The decoder's numbers at draws from N(0, I)."""
        z = standard_normal((n, self.latents), self.reference(), generator)
        return self.generate(self.like_weights(z), condition)

    def log_prior(self, z: Tensor, condition: Condition) -> Tensor:
        """The log-density of N(0, I) in nats, (batch,)."""
        return standard_log_prob(z)
