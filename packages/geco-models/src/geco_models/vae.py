"""VAEs with a Gaussian posterior and a standard normal prior: linear, dense, convolutional."""

import math
from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor, nn

from geco_models.base import Condition, Options
from geco_models.gaussian import DiagonalGaussian
from geco_models.gaussian_vae import AbstractGaussianVAE
from geco_models.likelihoods import Output
from geco_models.networks import (
    ContextEncoder,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
)
from geco_models.tolerance import modulated, modulations
from geco_models.validation import as_positive, as_shape

__all__ = ["MLPVAE", "ConvVAE", "LinearVAE"]


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

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size or `scale` is not positive, or both `scale` and `input_scale` are
            given.
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
