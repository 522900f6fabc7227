"""What all latent-variable models share: the calls that users make."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.distributions import Independent

from geco_models.arguments import CheckedModule, Condition, Options
from geco_models.masks import ObservedElements, check_mask
from geco_models.output import ModelOutput, Posterior
from geco_models.validation import as_positive

__all__ = ["AbstractVAE", "Condition", "Options"]


class AbstractVAE(CheckedModule, ABC):
    """A latent-variable model: the calls that users make.

    A subclass passes its constructor arguments as `config` and writes the networks' side of the
    calls, on checked arguments: `infer`, `draw`, `generate`, `encode`, `log_prior`, and
    `latents_shape`; `embed` where the context passes through a network first.

    Args:
        shape: The shape of one example, without the batch dimension.
        config: The constructor arguments from which `type(self)(**config)` builds the same
            model; lists, numbers, strings, booleans and None only. Those of `Options` are added.
        context_shape: The shape of one example's context, planes (C, H, W) or a vector (F,);
            None for an unconditional model.
        input_mean: See `Options`, as the following ones.
        input_scale: The data's scale.
        likelihood: The decoder's distribution.
        tolerance: The range of the tolerance as an input.
    """

    @property
    @abstractmethod
    def latents_shape(self) -> tuple[int, ...]:
        """The shape of one example's latents."""

    @abstractmethod
    def infer(
        self, u: Tensor, condition: Condition, generator: torch.Generator | None
    ) -> ModelOutput:
        """Encodes, draws and decodes: `forward` behind its checks.

        Args:
            u: The data in the networks' units, (batch, *shape).
            condition: What `embed` made of the context, and the tolerances.
            generator: The source of randomness; the global one if None.
        """

    @abstractmethod
    def draw(self, n: int, condition: Condition, generator: torch.Generator | None) -> Tensor:
        """The decoder's numbers at draws from the prior, (n, *decoded_shape).

        Args:
            n: The number of draws.
            condition: What `embed` made of the context, and the tolerances.
            generator: The source of randomness; the global one if None.
        """

    @abstractmethod
    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        """The decoder's numbers at given latents, of which `observe` makes means.

        Args:
            z: Latents of the weights' type, (batch, *latents_shape).
            condition: What `embed` made of the context, and the tolerances.

        Returns:
            The numbers, (batch, *decoded_shape).
        """

    @abstractmethod
    def encode(self, u: Tensor, condition: Condition) -> Posterior:
        """The approximate posteriors of data in the networks' units.

        Args:
            u: The data in the networks' units, (batch, *shape).
            condition: What `embed` made of the context, and the tolerances.
        """

    @abstractmethod
    def log_prior(self, z: Tensor, condition: Condition) -> Tensor:
        """The log-density of the prior in nats, (batch,).

        Args:
            z: Latents, (batch, *latents_shape).
            condition: What `embed` made of the context, and the tolerances.
        """

    def embed(self, context: Tensor | None) -> Tensor | None:
        """What the networks read of a checked context; by default the context itself.

        Args:
            context: The context, (batch, *context_shape), or None.

        Returns:
            The embedding, with one row per example, or None.
        """
        return context

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        kappa: Tensor | float | None = None,
        mask: Tensor | None = None,
    ) -> ModelOutput:
        """Encodes, draws one latent per example, and decodes.

        Args:
            x: The data, (batch, *shape), floating point, cast to the weights' type; in [0, 1]
                unless `input_mean` and `input_scale` say otherwise.
            context: The context, (batch, *context_shape), for a conditional model only.
            generator: The source of randomness; the global one if None.
            kappa: The tolerances, a number or (batch,), in the units of the data; for a model
                with a `tolerance` only.
            mask: True where an element was observed, of the shape of `x`, where any axis may have
                size 1 (`geco_models.masks`); None for all. The others may hold anything.

        Returns:
            Reconstruction, KL in nats per example, and latents.

        Raises:
            TypeError: If `x` or `context` is not floating point, or `mask` not boolean.
            ValueError: If a shape is wrong, `context` or `kappa` is missing or superfluous, or
                `kappa` is outside the range.
        """
        u, condition = self._checked(x, context, kappa, mask)
        output = self.infer(u, condition, generator)
        if mask is None or not isinstance(output.distribution, Independent):
            return output
        return output._replace(distribution=ObservedElements(output.distribution, mask))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        kappa: Tensor | float | None = None,
    ) -> Tensor:
        """Draws from the model: latents from the prior, through the decoder; no gradients.

        Args:
            n: The number of draws.
            context: The context, (n, *context_shape) or one for all, (1, *context_shape); for a
                conditional model only.
            generator: The source of randomness; the global one if None.
            kappa: The tolerances, for a model with a `tolerance` only.

        Returns:
            The decoder's means, (n, *shape).

        Raises:
            TypeError: If `n` is not an integer.
            ValueError: If `n` is not positive, or `context` or `kappa` is missing or superfluous.
        """
        n = as_positive(n, "n")
        return self.observe(self.draw(n, self._condition(context, kappa, n), generator))[0]

    def decode(
        self, z: Tensor, context: Tensor | None = None, *, kappa: Tensor | float | None = None
    ) -> Tensor:
        """The decoder's mean :math:`g(z)`.

        Args:
            z: Latents, (batch, ...), as in `ModelOutput.latents`.
            context: The context, for a conditional model only.
            kappa: The tolerances, for a model with a `tolerance` only.

        Returns:
            The means, (batch, *shape).

        Raises:
            TypeError: If `z` is not floating point.
            ValueError: If a shape is wrong, or `context` or `kappa` is missing or superfluous.
        """
        self.check_latents(z, self.latents_shape)
        condition = self._condition(context, kappa, z.shape[0])
        return self.observe(self.generate(self.like_weights(z), condition))[0]

    def posterior(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        kappa: Tensor | float | None = None,
        mask: Tensor | None = None,
    ) -> Posterior:
        """The approximate posterior of each example, as an object that samples and evaluates.

        Args:
            x: The data, (batch, *shape).
            context: The context, for a conditional model only.
            kappa: The tolerances, for a model with a `tolerance` only.
            mask: True where an element was observed; None for all.

        Returns:
            The posteriors; those of Gaussian models also have `mean` and `log_variance`.
        """
        return self.encode(*self._checked(x, context, kappa, mask))

    def prior_log_prob(
        self, z: Tensor, context: Tensor | None = None, *, kappa: Tensor | float | None = None
    ) -> Tensor:
        """The log-density of the prior.

        Args:
            z: Latents, (batch, ...), as in `ModelOutput.latents`.
            context: The context, for a conditional model only.
            kappa: The tolerances, for a model with a `tolerance` only.

        Returns:
            The log-densities in nats, (batch,).
        """
        self.check_latents(z, self.latents_shape)
        return self.log_prior(z, self._condition(context, kappa, z.shape[0]))

    def _checked(
        self,
        x: Tensor,
        context: Tensor | None,
        kappa: Tensor | float | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Condition]:
        """The data in the networks' units, 0 where nothing was observed, and the condition."""
        x = self.check_input(x)
        u = self.units(x)
        if mask is not None:
            u = torch.where(check_mask(mask, x), u, 0.0)
        return u, self._condition(context, kappa, x.shape[0])

    def _condition(
        self, context: Tensor | None, kappa: Tensor | float | None, batch: int
    ) -> Condition:
        embedding = self.embed(self.check_context(context, batch))
        return Condition(embedding, self.check_kappa(kappa, batch))
