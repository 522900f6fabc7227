"""VAEs with a Gaussian posterior and a standard normal prior: linear, dense, convolutional."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from geco_models.base import AbstractVAE
from geco_models.gaussian import DiagonalGaussian, standard_log_prob, standard_normal
from geco_models.networks import (
    ContextEncoder,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
)
from geco_models.output import ModelOutput
from geco_models.validation import as_positive, as_shape

__all__ = ["MLPVAE", "AbstractGaussianVAE", "ConvVAE", "LinearVAE", "Output"]

Output = Literal["identity", "sigmoid"]
"""What follows the decoder's last layer: nothing, or a sigmoid for data in [0, 1]."""


def as_output(value: str) -> Output:
    """The name of an output activation.

    Args:
        value: What was passed as `output`.

    Returns:
        The same name.

    Raises:
        ValueError: If there is no such activation.
    """
    if value not in get_args(Output):
        raise ValueError(f"`output` must be 'identity' or 'sigmoid', got {value!r}")
    return value  # type: ignore[return-value]


def activate(raw: Tensor, output: Output) -> Tensor:
    """Applies an output activation.

    Args:
        raw: The decoder's last layer.
        output: The activation's name.

    Returns:
        The reconstruction.
    """
    return torch.sigmoid(raw) if output == "sigmoid" else raw


class AbstractGaussianVAE(AbstractVAE):
    r"""A VAE with :math:`q(z|x) = N(m(x), \operatorname{diag} e^{l(x)})` and prior N(0, I).

    The KL divergence is exact. A subclass writes `encode` and `generate`, and `embed` where the
    context passes through a network first, which then runs once for both.

    Args:
        shape: The shape of one example.
        latents: The number of latent dimensions.
        config: The constructor arguments.
        context_shape: The shape of one context; None for an unconditional model.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latents: int,
        config: Mapping[str, Any],
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(shape, config, context_shape)
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
    def encode(self, x: Tensor, embedding: Tensor | None = None) -> DiagonalGaussian:
        """The posteriors of checked data.

        Args:
            x: The data, (batch, *shape).
            embedding: What `embed` made of the context.

        Returns:
            Gaussians over (batch, latents).
        """

    @abstractmethod
    def generate(self, z: Tensor, embedding: Tensor | None = None) -> Tensor:
        """The decoder's means at checked latents of the weights' type.

        Args:
            z: Latents, (batch, latents).
            embedding: What `embed` made of the context.

        Returns:
            The means, (batch, *shape).
        """

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The decoder's mean :math:`g(z)`.

        Args:
            z: Latents, (batch, latents).
            context: The context, for a conditional model only.

        Returns:
            The means, (batch, *shape).

        Raises:
            TypeError: If `z` is not floating point.
            ValueError: If a shape is wrong, or the context is missing or superfluous.
        """
        self.check_latents(z, (self.latents,))
        embedding = self.embed(self.check_context(context, z.shape[0]))
        return self.generate(self.like_weights(z), embedding)

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> ModelOutput:
        """Encodes, draws one latent per example, and decodes; the KL divergence is exact."""
        posterior, embedding = self._posterior(x, context)
        z = posterior.sample(generator)
        return ModelOutput(self.generate(self.like_weights(z), embedding), posterior.kl(), z)

    def posterior(self, x: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        """The Gaussian posterior of each example."""
        return self._posterior(x, context)[0]

    @torch.no_grad()
    def sample(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Decodes draws from N(0, I); no gradients."""
        n = as_positive(n, "n")
        embedding = self.embed(self.check_context(context, n))
        z = standard_normal((n, self.latents), self.reference(), generator)
        return self.generate(self.like_weights(z), embedding)

    def prior_log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-density of N(0, I) in nats, (batch,); the context is checked, then ignored."""
        self.check_latents(z, (self.latents,))
        self.check_context(context, z.shape[0])
        return standard_log_prob(z)

    def _posterior(
        self, x: Tensor, context: Tensor | None
    ) -> tuple[DiagonalGaussian, Tensor | None]:
        self.check_input(x)
        embedding = self.embed(self.check_context(context, x.shape[0]))
        return self.encode(x, embedding), embedding


class LinearVAE(AbstractGaussianVAE):
    r"""A VAE whose mean, log-variance and decoder are affine maps.

    On linear-Gaussian data it attains the exact rate-distortion optimum D7: the optimal
    posterior variance :math:`\theta / \mu_j` does not depend on the input.

    Args:
        features: The number of features of one example, or its shape.
        latents: The number of latent dimensions.
        scale: The data's typical size: inputs are divided by it and outputs multiplied by it
            inside the model, so that one learning rate serves data in any units.
    """

    def __init__(self, features: int | Sequence[int], latents: int, *, scale: float = 1.0) -> None:
        shape = as_shape(
            [features] if not isinstance(features, Sequence) else features, "features"
        )
        if not 0 < scale < math.inf:
            raise ValueError(f"`scale` must be a positive finite number, got {scale}")
        scale = float(scale)
        whole: Any = shape[0] if len(shape) == 1 else shape
        super().__init__(shape, latents, {"features": whole, "latents": latents, "scale": scale})
        self.scale = scale
        size = math.prod(shape)
        self.encoder = nn.Linear(size, 2 * self.latents)
        self.decoder = nn.Linear(self.latents, size)

    def encode(self, x: Tensor, embedding: Tensor | None = None) -> DiagonalGaussian:
        """The posteriors of checked data."""
        return DiagonalGaussian.from_raw(self.encoder(x.flatten(1) / self.scale))

    def generate(self, z: Tensor, embedding: Tensor | None = None) -> Tensor:
        """The decoder's means at checked latents."""
        x: Tensor = self.scale * self.decoder(z)
        return x.reshape(-1, *self.shape)


class MLPVAE(AbstractGaussianVAE):
    """A VAE with dense encoder and decoder, for data of any shape.

    Args:
        shape: The shape of one example.
        latents: The number of latent dimensions.
        hidden: The sizes of the encoder's hidden layers; the decoder has them in reverse.
        context_shape: The shape of one context, (C, H, W) or (F,); it is joined to the input
            and to the latents. None for an unconditional model.
        output: What follows the decoder's last layer, "identity" or "sigmoid".
    """

    def __init__(
        self,
        shape: Sequence[int],
        latents: int,
        hidden: Sequence[int] = (400,),
        *,
        context_shape: Sequence[int] | None = None,
        output: Output = "identity",
    ) -> None:
        shape = as_shape(shape)
        sizes = as_shape(hidden, "hidden")
        config = {
            "shape": shape,
            "latents": latents,
            "hidden": sizes,
            "context_shape": context_shape,
            "output": output,
        }
        super().__init__(shape, latents, config, context_shape)
        self.output = as_output(output)
        extra = math.prod(self.context_shape) if self.context_shape else 0
        self.encoder = DenseEncoder(shape, 2 * self.latents, sizes, extra)
        self.decoder = DenseDecoder(shape, self.latents, sizes[::-1], extra)

    def embed(self, context: Tensor | None) -> Tensor | None:
        """The context as one vector per example."""
        return None if context is None else context.flatten(1)

    def encode(self, x: Tensor, embedding: Tensor | None = None) -> DiagonalGaussian:
        """The posteriors of checked data."""
        return DiagonalGaussian.from_raw(self.encoder(x, embedding))

    def generate(self, z: Tensor, embedding: Tensor | None = None) -> Tensor:
        """The decoder's means at checked latents."""
        return activate(self.decoder(z, embedding), self.output)


class ConvVAE(AbstractGaussianVAE):
    """A VAE with convolutional encoder and decoder, for images of 8 x 8 and larger.

    Args:
        shape: Channels, height and width of an image.
        latents: The number of latent dimensions.
        width: Channels at the coarsest stage (planes of at most 8 x 8); finer ones have half.
        context_shape: The shape of one context, (C, H, W) or (F,), which conditions encoder and
            decoder; None for an unconditional model.
        output: What follows the decoder's last layer, "identity" or "sigmoid".
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        latents: int = 32,
        width: int = 32,
        *,
        context_shape: Sequence[int] | None = None,
        output: Output = "identity",
    ) -> None:
        shape = as_shape(shape, dims=(3,))
        config = {
            "shape": shape,
            "latents": latents,
            "width": width,
            "context_shape": context_shape,
            "output": output,
        }
        super().__init__(shape, latents, config, context_shape)
        width = as_positive(width, "width")
        self.output = as_output(output)
        self.context_encoder = (
            None if self.context_shape is None else ContextEncoder(self.context_shape, width)
        )
        extra = self.context_encoder.features if self.context_encoder else 0
        self.encoder = ConvEncoder(shape, 2 * self.latents, width, extra)
        self.decoder = ConvDecoder(shape, self.latents, width, extra)

    def embed(self, context: Tensor | None) -> Tensor | None:
        """One vector per context."""
        return None if self.context_encoder is None else self.context_encoder(context)

    def encode(self, x: Tensor, embedding: Tensor | None = None) -> DiagonalGaussian:
        """The posteriors of checked data."""
        return DiagonalGaussian.from_raw(self.encoder(x, embedding))

    def generate(self, z: Tensor, embedding: Tensor | None = None) -> Tensor:
        """The decoder's means at checked latents."""
        return activate(self.decoder(z, embedding), self.output)
