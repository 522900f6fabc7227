"""What all latent-variable models share: the calls that they answer, and checks of the input."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from geco_models.checkpoint import ConfiguredModule
from geco_models.output import ModelOutput, Posterior
from geco_models.validation import as_shape, check_tensor

__all__ = ["AbstractVAE"]


class AbstractVAE(ConfiguredModule, ABC):
    """A latent-variable model with a Gaussian decoder: the parts that every family shares.

    A subclass passes its constructor arguments as `config` and writes `forward`, `sample`,
    `posterior` and `prior_log_prob`, calling the `check_` methods on what it is given. Checks
    read shapes and types only, never values: they cost nothing on a device and compile away.

    Args:
        shape: The shape of one example, without the batch dimension.
        config: The constructor arguments from which `type(self)(**config)` builds the same
            model; lists, numbers, strings, booleans and None only.
        context_shape: The shape of one example's context, planes (C, H, W) or a vector (F,);
            None for an unconditional model.
    """

    def __init__(
        self,
        shape: Sequence[int],
        config: Mapping[str, Any],
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(config)
        self.shape = as_shape(shape)
        self.context_shape = (
            None if context_shape is None else as_shape(context_shape, "context_shape", (1, 3))
        )

    @abstractmethod
    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> ModelOutput:
        """Encodes, draws one latent per example, and decodes.

        Args:
            x: The data, (batch, *shape), floating point; images in [0, 1].
            context: The context, (batch, *context_shape), for a conditional model only.
            generator: The source of randomness; the global one if None.

        Returns:
            Reconstruction, KL in nats per example, and latents.

        Raises:
            TypeError: If `x` or `context` is not floating point.
            ValueError: If a shape is wrong, or the context is missing or superfluous.
        """

    @abstractmethod
    def sample(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws from the model: latents from the prior, through the decoder; no gradients.

        Args:
            n: The number of draws.
            context: The context, (n, *context_shape) or one for all, (1, *context_shape); for a
                conditional model only.
            generator: The source of randomness; the global one if None.

        Returns:
            The decoder's means, (n, *shape).

        Raises:
            TypeError: If `n` is not an integer.
            ValueError: If `n` is not positive, or the context is missing or superfluous.
        """

    @abstractmethod
    def posterior(self, x: Tensor, context: Tensor | None = None) -> Posterior:
        """The approximate posterior of each example, as an object that samples and evaluates.

        Args:
            x: The data, (batch, *shape).
            context: The context, for a conditional model only.

        Returns:
            The posteriors; those of Gaussian models also have `mean` and `log_variance`.
        """

    @abstractmethod
    def prior_log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density of the prior.

        Args:
            z: Latents, (batch, ...), as in `ModelOutput.latents`.
            context: The context, for a conditional model only.

        Returns:
            The log-densities in nats, (batch,).
        """

    def check_input(self, x: Tensor) -> Tensor:
        """The data, once their type and shape are right.

        Args:
            x: What was passed as data.

        Returns:
            The same tensor.

        Raises:
            TypeError: If it is not a floating-point tensor.
            ValueError: If its shape is not (batch, *shape).
        """
        return check_tensor(x, "x", self.shape, type(self).__name__)

    def check_latents(self, z: Tensor, latent_shape: Sequence[int]) -> Tensor:
        """Latents, once their type and shape are right.

        Args:
            z: What was passed as latents.
            latent_shape: The shape of one example's latents.

        Returns:
            The same tensor.

        Raises:
            TypeError: If it is not a floating-point tensor.
            ValueError: If its shape is not (batch, *latent_shape).
        """
        return check_tensor(z, "z", latent_shape, type(self).__name__)

    def check_context(self, context: Tensor | None, batch: int) -> Tensor | None:
        """The context, once it is there exactly if the model wants one, and of the right shape.

        Args:
            context: What was passed as context.
            batch: The number of examples; a context of one row serves all of them.

        Returns:
            The context with `batch` rows, or None for an unconditional model.

        Raises:
            TypeError: If it is not a floating-point tensor.
            ValueError: If it is missing, superfluous or of a wrong shape.
        """
        name = type(self).__name__
        if self.context_shape is None:
            if context is not None:
                msg = (
                    f"`context` was given, but this {name} is unconditional (`context_shape=None`)"
                )
                raise ValueError(msg)
            return None
        if context is None:
            wanted = ", ".join(map(str, self.context_shape))
            raise ValueError(f"`context` is missing: this {name} needs (batch, {wanted})")
        check_tensor(context, "context", self.context_shape, name)
        if context.shape[0] == batch:
            return context
        if context.shape[0] != 1:
            msg = f"`context` must have {batch} rows (one per example) or 1, got {len(context)}"
            raise ValueError(msg)
        return context.expand(batch, *self.context_shape)

    def like_weights(self, x: Tensor) -> Tensor:
        """The tensor in the weights' type: latents are float32 at least, weights may be half.

        Args:
            x: Any floating-point tensor.

        Returns:
            The same values in the weights' type.
        """
        return x.to(self.reference().dtype)
