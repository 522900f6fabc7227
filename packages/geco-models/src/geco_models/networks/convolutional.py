r"""Convolutional encoders and decoders for signals, images and volumes of any size.

The pair halves the planes (rounding up) until their longest side is at most 8, and grows them
back by transposed convolutions, cut to the exact sizes on the way down. A side of 4 or less is
not halved any further: a signal of 300 samples in 8 rows keeps its rows. One dense layer joins the
coarsest planes to the latents. There is no batch normalisation and no dropout: a model in
evaluation computes what it computed in training. SiLU throughout.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from geco_models.tolerance import modulated, modulations

__all__ = ["ConvDecoder", "ConvEncoder", "halvings", "suits_convolution"]

MINIMUM_SIDE = 8
"""The smallest side that the convolutional networks take (of volumes: of all but one side)."""

COARSEST_SIDE = 8
LEAST_SIDE = 4

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_KINDS = {1: "signals", 2: "images", 3: "volumes"}


def halvings(*sides: int) -> list[tuple[int, ...]]:
    """The sizes of the planes from the data down to the coarsest stage, at least two.

    Args:
        *sides: The sides of a signal (one), image (two) or volume (three).

    Returns:
        The sides of the data and of every stage.

    Raises:
        ValueError: If a side is too small.
    """
    wide = sorted(sides)[-2:]
    if min(wide) < MINIMUM_SIDE:
        wanted = " x ".join([str(MINIMUM_SIDE)] * len(wide))
        got = " x ".join(map(str, sides))
        kind = _KINDS[len(sides)]
        raise ValueError(f"{kind} must be at least {wanted} for convolutions, got {got}")
    sizes = [tuple(sides)]
    while len(sizes) == 1 or max(sizes[-1]) > COARSEST_SIDE:
        sizes.append(tuple((s + 1) // 2 if s > LEAST_SIDE else s for s in sizes[-1]))
    return sizes


def suits_convolution(shape: Sequence[int]) -> bool:
    """Whether an example is an image large enough for the convolutional networks.

    Args:
        shape: The shape of one example.

    Returns:
        True for (C, H, W) with both sides at least 8.
    """
    return len(shape) == 3 and min(shape[1:]) >= MINIMUM_SIDE


def _stage_channels(stages: int, width: int) -> list[int]:
    # half as many on the finer planes, where a channel costs most and carries least
    return [max(width // 2, 1)] * (stages - 1) + [width]


def _halved(fine: Sequence[int], coarse: Sequence[int]) -> list[bool]:
    return [a != b for a, b in zip(fine, coarse, strict=True)]


class ConvEncoder(nn.Module):
    """From signals, images or volumes to a vector.

    Args:
        shape: Channels and sides of an example.
        outputs: The length of the vector.
        width: Channels at the coarsest stage; finer stages have half as many.
        context_features: The length of a context embedding; 0 for none.
        tolerance: The range of tolerances that modulate the hidden layers; None for none.
        centred: Whether the data lie around 0 already; data in [0, 1] are moved to [-1, 1].
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        width: int,
        context_features: int = 0,
        tolerance: Sequence[float] | None = None,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.centred = centred
        channels, *sides = shape
        sizes = halvings(*sides)
        stages = _stage_channels(len(sizes) - 1, width)
        convolution = _CONVOLUTIONS[len(sides)]
        self.convolutions = nn.ModuleList(
            convolution(
                inputs,
                outputs_,
                3,
                stride=tuple(2 if half else 1 for half in _halved(fine, coarse)),
                padding=1,
            )
            for inputs, outputs_, fine, coarse in zip(
                [channels, *stages[:-1]], stages, sizes[:-1], sizes[1:], strict=True
            )
        )
        self.features = width * math.prod(sizes[-1])
        self.context = nn.Linear(context_features, self.features) if context_features else None
        self.modulations = modulations(stages, tolerance)
        self.head = nn.Linear(self.features, outputs)

    def embed(
        self, x: Tensor, context: Tensor | None = None, kappa: Tensor | None = None
    ) -> Tensor:
        """The features before the last dense layer.

        Args:
            x: Data in [0, 1], or around 0 if `centred`, (batch, *shape).
            context: Context embeddings, (batch, context_features), if there are any.
            kappa: Tolerances, (batch,), if the network has a range of them.

        Returns:
            The features, (batch, features).
        """
        hidden = x if self.centred else 2 * x - 1
        last = len(self.convolutions) - 1
        for index, convolution in enumerate(self.convolutions):
            hidden = modulated(self.modulations, index, convolution(hidden), kappa)
            if index < last:
                hidden = functional.silu(hidden)
        hidden = hidden.flatten(1)
        if self.context is not None:
            hidden = hidden + self.context(context)
        return functional.silu(hidden)

    def forward(
        self, x: Tensor, context: Tensor | None = None, kappa: Tensor | None = None
    ) -> Tensor:
        """The vector for each example.

        Args:
            x: Data in [0, 1], or around 0 if `centred`, (batch, *shape).
            context: Context embeddings, (batch, context_features), if there are any.
            kappa: Tolerances, (batch,), if the network has a range of them.

        Returns:
            The vectors, (batch, outputs).
        """
        result: Tensor = self.head(self.embed(x, context, kappa))
        return result


class ConvDecoder(nn.Module):
    """From a vector to signals, images or volumes.

    Args:
        shape: Channels and sides of what is made.
        inputs: The length of the vector.
        width: Channels at the coarsest stage; finer stages have half as many.
        context_features: The length of a context embedding; 0 for none.
        tolerance: The range of tolerances that modulate the hidden layers; None for none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        inputs: int,
        width: int,
        context_features: int = 0,
        tolerance: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        channels, *sides = shape
        sizes = halvings(*sides)
        *self.sizes, self.coarsest = sizes
        stages = _stage_channels(len(self.sizes), width)
        self.width = width
        features = width * math.prod(self.coarsest)
        self.stem = nn.Linear(inputs, features)
        self.context = nn.Linear(context_features, features) if context_features else None
        self.modulations = modulations(stages[::-1], tolerance)
        transposed = _TRANSPOSED[len(sides)]
        self.convolutions = nn.ModuleList()
        for inputs_, outputs, coarse, fine in zip(
            stages[::-1], [*stages[-2::-1], channels], sizes[:0:-1], sizes[-2::-1], strict=True
        ):
            halved = _halved(fine, coarse)
            self.convolutions.append(
                transposed(
                    inputs_,
                    outputs,
                    kernel_size=tuple(4 if half else 3 for half in halved),
                    stride=tuple(2 if half else 1 for half in halved),
                    padding=1,
                )
            )

    def forward(
        self, z: Tensor, context: Tensor | None = None, kappa: Tensor | None = None
    ) -> Tensor:
        """The example for each vector.

        Args:
            z: Vectors, (batch, inputs).
            context: Context embeddings, (batch, context_features), if there are any.
            kappa: Tolerances, (batch,), if the network has a range of them.

        Returns:
            The examples, (batch, *shape), unbounded.
        """
        hidden: Tensor = self.stem(z)
        if self.context is not None:
            hidden = hidden + self.context(context)
        hidden = hidden.reshape(-1, self.width, *self.coarsest)
        for index, (convolution, sides) in enumerate(
            zip(self.convolutions, reversed(self.sizes), strict=True)
        ):
            hidden = modulated(self.modulations, index, hidden, kappa)
            hidden = convolution(functional.silu(hidden))
            for axis, side in enumerate(sides, start=2):
                hidden = hidden.narrow(axis, 0, side)
        return hidden
