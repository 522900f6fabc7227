"""ConvDraw's networks around the steps: images to planes, the first state, canvas to image."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from geco_models.arguments import CheckedModule
from geco_models.conv_draw.alignment import AlignedConv2d
from geco_models.conv_draw.step import DrawCore, DrawState, Offsets, Sources
from geco_models.validation import as_positive

__all__ = ["DrawNetwork", "PictureNetwork", "picture_arguments"]


def picture_arguments(
    model: CheckedModule,
    hidden: int,
    features: int | None,
    stride: int,
    kernel: int,
    canvas: int | None,
) -> dict[str, Any]:
    """The arguments of `PictureNetwork` for a model, once they are right.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is too small, or `kernel` is even.
    """
    if as_positive(kernel, "kernel") % 2 == 0:
        raise ValueError(f"`kernel` must be odd so that planes keep their size, got {kernel}")
    bernoulli = model.likelihood is not None and model.likelihood.name == "bernoulli"
    return {
        "shape": model.shape,
        "hidden": as_positive(hidden, "hidden"),
        "features": hidden if features is None else as_positive(features, "features"),
        "context_shape": model.context_shape,
        "stride": as_positive(stride, "stride"),
        "kernel": kernel,
        "canvas": None if canvas is None else as_positive(canvas, "canvas"),
        "spread": model.decoded_shape != model.shape,
        "start": 0.5 if model.units.identity and not bernoulli else 0.0,
    }


class PictureNetwork(nn.Module):
    r"""Creates what stands around the steps: images to planes and features, canvas to image.

    Images are folded: each block of stride times stride pixels becomes the channels of one state
    cell. Sides that are no multiples of the stride are continued at the right and lower edge.

    Args:
        shape: The shape (C, H, W) of one image.
        hidden: The channels of the recurrent states.
        features: The channels of the features of image and context.
        context_shape: Planes (C, H, W), a vector (F,), or None for an unconditional model.
        stride: Image pixels per state cell along each side.
        kernel: The odd side of the convolutions over states.
        canvas: The channels of the canvas; None where the canvas is the folded image.
        spread: Whether a scale is made for each pixel beside its mean, from the decoder's last
            hidden state.
        start: What the picture of the first canvas is, the middle of the data's range.

    Attributes:
        size: The height and width of states and latents.
        pixels: The channels of a folded image.
        context_kernel: The side of the convolutions over the context's features; None without.
        first_canvas: The canvas before the first step, learned, one number per position.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        hidden: int,
        features: int,
        context_shape: tuple[int, ...] | None,
        stride: int,
        kernel: int,
        canvas: int | None,
        spread: bool,
        start: float,
    ) -> None:
        super().__init__()
        self.shape, self.stride, self.hidden = tuple(shape), stride, hidden
        channels, height, width = shape
        self.size = (math.ceil(height / stride), math.ceil(width / stride))
        self.pixels = channels * stride**2
        self.image_net = _planes_net(self.pixels, hidden, features, kernel)
        self.context_net: nn.Module | None = None
        self.context_kernel: int | None = None
        if context_shape is not None and len(context_shape) == 1:
            self.context_net, self.context_kernel = _vector_net(context_shape[0], features), 1
        elif context_shape is not None:
            folded = context_shape[0] * stride**2
            self.context_net, self.context_kernel = (
                _planes_net(folded, hidden, features, kernel),
                kernel,
            )
        self.readout = None if canvas is None else AlignedConv2d(canvas, self.pixels, 1)
        self.spread_head = AlignedConv2d(hidden, self.pixels, 1) if spread else None
        self.middle = start
        self.first_canvas = nn.Parameter(torch.empty(1, canvas or self.pixels, *self.size))

    def reset_canvas(self) -> None:
        """Starts the picture at the middle of the data's range."""
        nn.init.constant_(self.first_canvas, self.middle if self.readout is None else 0.0)
        if self.readout is not None and self.readout.bias is not None:
            nn.init.constant_(self.readout.bias, self.middle)

    def sources(
        self, x: Tensor | None, context: Tensor | None, kappa: Tensor | None = None
    ) -> Sources:
        """The planes and features of checked images and contexts, made once for all steps."""
        planes = None
        if self.context_net is not None and context is not None:
            if context.dim() == 4:
                if context.shape[2:] != self.shape[1:]:
                    context = functional.interpolate(context, self.shape[1:], mode="area")
                context = self.fold(context)
            planes = self.context_net(context)
        if x is None:
            return Sources(None, None, planes, kappa)
        image = self.fold(x)
        return Sources(image, self.image_net(image), planes, kappa)

    def fold(self, planes: Tensor) -> Tensor:
        """Space to depth: (batch, C, H, W) to (batch, C stride^2, h, w)."""
        below = self.size[0] * self.stride - planes.shape[2]
        right = self.size[1] * self.stride - planes.shape[3]
        if below or right:
            planes = functional.pad(planes, (0, right, 0, below), mode="replicate")
        return functional.pixel_unshuffle(planes, self.stride)

    def picture(self, canvas: Tensor) -> Tensor:
        """The folded image that a canvas stands for."""
        return canvas if self.readout is None else self.readout(canvas)

    def image(self, canvas: Tensor) -> Tensor:
        """The image that a canvas stands for, (batch, C, H, W)."""
        return self._unfold(self.picture(canvas))

    def numbers(self, canvas: Tensor, decoder: Tensor) -> Tensor:
        """The decoder's numbers of the last canvas and hidden state: means, then any scales.

        Channels beyond those of canvas and state are left out.
        """
        means = self.image(_first(canvas, self.first_canvas.shape[1]))
        if self.spread_head is None:
            return means
        decoder = _first(decoder, self.hidden)
        return torch.cat((means, self._unfold(self.spread_head(decoder))), dim=1)

    def _unfold(self, planes: Tensor) -> Tensor:
        image = functional.pixel_shuffle(planes, self.stride)
        if image.shape[2:] == self.shape[1:]:
            return image
        return image[:, :, : self.shape[1], : self.shape[2]].contiguous()


class DrawNetwork(PictureNetwork):
    r"""Creates the steps of a ConvDraw model and what stands around them.

    Args:
        steps: The number of steps.
        latent_channels: The channels of each latent map.
        shared: Whether all steps use the same weights.
        tolerance: The range of tolerances that the steps read; None for none.
        picture: The arguments of `PictureNetwork`.

    Attributes:
        cores: The networks of the steps: one for all, or one each.
    """

    def __init__(
        self,
        steps: int,
        latent_channels: int,
        shared: bool,
        tolerance: tuple[float, float] | None,
        picture: dict[str, Any],
    ) -> None:
        super().__init__(**picture)
        self.latent_channels = latent_channels
        hidden = self.hidden
        self.cores = nn.ModuleList(
            DrawCore(
                self.pixels,
                picture["canvas"],
                latent_channels,
                hidden,
                picture["features"],
                picture["kernel"],
                self.context_kernel,
                tolerance,
            )
            for _ in range(1 if shared else steps)
        )
        # what the first step starts from is learned, one number per position
        self.first_prior = nn.Parameter(torch.empty(2, hidden, *self.size))
        self.first_posterior = nn.Parameter(torch.empty(2, hidden, *self.size))
        self.first_decoder = nn.Parameter(torch.empty(2, hidden, *self.size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Starts the picture at the middle of the data's range, and the states near 0."""
        self.reset_canvas()
        for states in (self.first_prior, self.first_posterior, self.first_decoder):
            # not at 0, where the weights of the first step would get no gradient
            nn.init.normal_(states, std=0.1)

    def core(self, step: int) -> DrawCore:
        """The networks of one step."""
        core = self.cores[step % len(self.cores)]
        if not isinstance(core, DrawCore):
            raise TypeError(f"`cores` must hold DrawCore modules, got {type(core).__name__}")
        return core

    def start(self) -> DrawState:
        """The learned state before the first step, of batch size 1."""
        states = (self.first_prior, self.first_posterior, self.first_decoder)
        # chunks, whose gradients are joined by one operation
        prior, posterior, decoder = ((s[0], s[1]) for s in map(_halves, states))
        latent = self.first_canvas.new_zeros(1, self.latent_channels, *self.size)
        return DrawState(self.first_canvas, prior, posterior, decoder, latent)

    def offsets(self, sources: Sources, biased: bool = False) -> Offsets | None:
        """The constant parts of the gates if all steps share weights; None if each has its own."""
        return self.core(0).offsets(sources, biased) if len(self.cores) == 1 else None


def _first(planes: Tensor, channels: int) -> Tensor:
    # no slice of everything, whose gradient would be copied
    return planes if planes.shape[1] == channels else planes[:, :channels]


def _halves(states: Tensor) -> tuple[Tensor, ...]:
    return torch.chunk(states, 2)


def _planes_net(channels: int, hidden: int, features: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        AlignedConv2d(channels, hidden, kernel, padding="same"),
        nn.GELU(),
        AlignedConv2d(hidden, features, kernel, padding="same"),
        nn.GELU(),
    )


def _vector_net(features: int, hidden: int) -> nn.Sequential:
    # planes of size 1x1: the same contribution to the gates everywhere
    return nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Unflatten(1, (hidden, 1, 1)))
