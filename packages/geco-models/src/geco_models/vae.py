"""VAEs with a Gaussian posterior and a standard normal prior: linear, dense, convolutional."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from geco_models.base import AbstractVAE, Condition, Options
from geco_models.gaussian import DiagonalGaussian, standard_log_prob, standard_normal
from geco_models.likelihoods import Output
from geco_models.networks import (
    ContextEncoder,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
)
from geco_models.output import ModelOutput
from geco_models.tolerance import modulated, modulations
from geco_models.validation import as_positive, as_shape

__all__ = ["MLPVAE", "AbstractGaussianVAE", "ConvVAE", "LinearVAE"]


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


class LinearVAE(AbstractGaussianVAE):
    r"""A VAE whose mean, log-variance and decoder are affine maps.

    On linear-Gaussian data it attains the exact rate-distortion optimum D7: the optimal
    posterior variance :math:`\theta / \mu_j` does not depend on the input. A tolerance scales and
    shifts the encoder's statistics and the decoder's latents.

    Args:
        features: The number of features of one example, or its shape.
        latents: The number of latent dimensions.
        scale: Another name of `input_scale`, of the first version.
        **options: See `Options`.
    """

    def __init__(
        self,
        features: int | Sequence[int],
        latents: int,
        *,
        scale: float = 1.0,
        **options: Unpack[Options],
    ) -> None:
        shape = as_shape(
            [features] if not isinstance(features, Sequence) else features, "features"
        )
        if not 0 < scale < math.inf:
            raise ValueError(f"`scale` must be a positive finite number, got {scale}")
        scale = float(scale)
        newer = "input_scale" in options
        if newer and scale != 1:
            raise ValueError("`scale` and `input_scale` are the same: give one of them")
        whole: Any = shape[0] if len(shape) == 1 else shape
        config = {"features": whole, "latents": latents, "scale": scale}
        if not newer:
            options["input_scale"] = scale
        super().__init__(shape, latents, config, **options)
        if not newer:
            self._config.pop("input_scale", None)
        size = math.prod(shape)
        self.encoder = nn.Linear(size, 2 * self.latents)
        self.decoder = nn.Linear(self.latents, math.prod(self.decoded_shape))
        self.modulations = modulations((2 * self.latents, self.latents), self.tolerance)

    @property
    def scale(self) -> float | tuple[float, ...]:
        """The data's scale: one number, or one for each channel."""
        return self.units.scale

    def encode(self, u: Tensor, condition: Condition) -> DiagonalGaussian:
        """The posteriors of checked data."""
        raw = modulated(self.modulations, 0, self.encoder(u.flatten(1)), condition.kappa)
        return DiagonalGaussian.from_raw(raw)

    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        """The decoder's numbers at checked latents."""
        raw: Tensor = self.decoder(modulated(self.modulations, 1, z, condition.kappa))
        return raw.reshape(-1, *self.decoded_shape)


class MLPVAE(AbstractGaussianVAE):
    """A VAE with dense encoder and decoder, for data of any shape.

    Args:
        shape: The shape of one example.
        latents: The number of latent dimensions.
        hidden: The sizes of the encoder's hidden layers; the decoder has them in reverse.
        context_shape: The shape of one context, (C, H, W) or (F,); it is joined to the input
            and to the latents. None for an unconditional model.
        output: What follows the decoder's last layer, "identity" or "sigmoid".
        **options: See `Options`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latents: int,
        hidden: Sequence[int] = (400,),
        *,
        context_shape: Sequence[int] | None = None,
        output: Output = "identity",
        **options: Unpack[Options],
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
        super().__init__(shape, latents, config, context_shape, **options)
        self.as_output(output)
        extra = math.prod(self.context_shape) if self.context_shape else 0
        self.encoder = DenseEncoder(shape, 2 * self.latents, sizes, extra, self.tolerance)
        self.decoder = DenseDecoder(
            self.decoded_shape, self.latents, sizes[::-1], extra, self.tolerance
        )

    def embed(self, context: Tensor | None) -> Tensor | None:
        """The context as one vector per example."""
        return None if context is None else context.flatten(1)

    def encode(self, u: Tensor, condition: Condition) -> DiagonalGaussian:
        """The posteriors of checked data."""
        return DiagonalGaussian.from_raw(self.encoder(u, *condition))

    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        """The decoder's numbers at checked latents."""
        raw: Tensor = self.decoder(z, *condition)
        return raw


class ConvVAE(AbstractGaussianVAE):
    """A VAE with convolutional encoder and decoder, for signals, images and volumes.

    Sides are at least 8; of volumes one side, of a short video its frames, may be shorter.

    Args:
        shape: Channels and length of a signal, (C, T); channels, height and width of an image,
            (C, H, W); channels and sides of a volume or video, (C, D, H, W).
        latents: The number of latent dimensions.
        width: Channels at the coarsest stage (sides of at most 8); finer ones have half.
        context_shape: The shape of one context, (C, H, W) or (F,), which conditions encoder and
            decoder; None for an unconditional model.
        output: What follows the decoder's last layer, "identity" or "sigmoid".
        **options: See `Options`.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        latents: int = 32,
        width: int = 32,
        *,
        context_shape: Sequence[int] | None = None,
        output: Output = "identity",
        **options: Unpack[Options],
    ) -> None:
        shape = as_shape(shape, dims=(2, 3, 4))
        config = {
            "shape": shape,
            "latents": latents,
            "width": width,
            "context_shape": context_shape,
            "output": output,
        }
        super().__init__(shape, latents, config, context_shape, **options)
        width = as_positive(width, "width")
        self.as_output(output)
        self.context_encoder = (
            None if self.context_shape is None else ContextEncoder(self.context_shape, width)
        )
        extra = self.context_encoder.features if self.context_encoder else 0
        centred = not self.units.identity
        self.encoder = ConvEncoder(shape, 2 * self.latents, width, extra, self.tolerance, centred)
        self.decoder = ConvDecoder(self.decoded_shape, self.latents, width, extra, self.tolerance)

    def embed(self, context: Tensor | None) -> Tensor | None:
        """One vector per context."""
        return None if self.context_encoder is None else self.context_encoder(context)

    def encode(self, u: Tensor, condition: Condition) -> DiagonalGaussian:
        """The posteriors of checked data."""
        return DiagonalGaussian.from_raw(self.encoder(u, *condition))

    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        """The decoder's numbers at checked latents."""
        raw: Tensor = self.decoder(z, *condition)
        return raw
