r"""Encoders and decoders: convolutional ones for images of any size, plain ones for vectors.

The convolutional pair halves the image (rounding up) until its longer side is at most 8, and
grows it back by transposed convolutions, cut to the exact sizes on the way down. One dense layer
joins the coarsest planes to the latents. There is no batch normalisation and no dropout: a model
in evaluation computes what it computed in training. SiLU throughout.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "ContextEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "DenseDecoder",
    "DenseEncoder",
    "halvings",
    "mlp",
    "suits_convolution",
]

MINIMUM_SIDE = 8
"""The smallest image side that the convolutional networks take."""

COARSEST_SIDE = 8
CONTEXT_FEATURES = 128


def halvings(height: int, width: int) -> list[tuple[int, int]]:
    """The sizes of the planes from the image down to the coarsest stage, at least two.

    Args:
        height: The image's height.
        width: The image's width.

    Returns:
        (height, width) of the image and of every stage.

    Raises:
        ValueError: If a side is too small.
    """
    if min(height, width) < MINIMUM_SIDE:
        raise ValueError(f"images must be at least 8 x 8 for convolutions, got {height} x {width}")
    sizes = [(height, width)]
    while len(sizes) == 1 or max(sizes[-1]) > COARSEST_SIDE:
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def suits_convolution(shape: Sequence[int]) -> bool:
    """Whether an example is an image large enough for the convolutional networks.

    Args:
        shape: The shape of one example.

    Returns:
        True for (C, H, W) with both sides at least 8.
    """
    return len(shape) == 3 and min(shape[1:]) >= MINIMUM_SIDE


def _join(x: Tensor, context: Tensor | None) -> Tensor:
    return x if context is None else torch.cat([x, context.to(x.dtype)], dim=1)


def _stage_channels(stages: int, width: int) -> list[int]:
    # half as many on the finer planes, where a channel costs most and carries least
    return [max(width // 2, 1)] * (stages - 1) + [width]


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Dense layers with SiLU between them (none after the last).

    Args:
        sizes: Input, hidden and output sizes.

    Returns:
        The network, from (batch, sizes[0]) to (batch, sizes[-1]).
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class ConvEncoder(nn.Module):
    """From images to a vector.

    Args:
        shape: Channels, height and width of an image.
        outputs: The length of the vector.
        width: Channels at the coarsest stage; finer stages have half as many.
        context_features: The length of a context embedding; 0 for none.
    """

    def __init__(
        self, shape: Sequence[int], outputs: int, width: int, context_features: int = 0
    ) -> None:
        super().__init__()
        channels, *size = shape
        sizes = halvings(size[0], size[1])
        stages = _stage_channels(len(sizes) - 1, width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs_, 3, stride=2, padding=1)
            for inputs, outputs_ in zip([channels, *stages[:-1]], stages, strict=True)
        )
        self.features = width * math.prod(sizes[-1])
        self.context = nn.Linear(context_features, self.features) if context_features else None
        self.head = nn.Linear(self.features, outputs)

    def embed(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The features before the last dense layer.

        Args:
            x: Images in [0, 1], (batch, *shape).
            context: Context embeddings, (batch, context_features), if there are any.

        Returns:
            The features, (batch, features).
        """
        hidden = 2 * x - 1
        for convolution in self.convolutions[:-1]:
            hidden = functional.silu(convolution(hidden))
        hidden = self.convolutions[-1](hidden).flatten(1)
        if self.context is not None:
            hidden = hidden + self.context(context)
        return functional.silu(hidden)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The vector for each image.

        Args:
            x: Images in [0, 1], (batch, *shape).
            context: Context embeddings, (batch, context_features), if there are any.

        Returns:
            The vectors, (batch, outputs).
        """
        result: Tensor = self.head(self.embed(x, context))
        return result


class ConvDecoder(nn.Module):
    """From a vector to an image.

    Args:
        shape: Channels, height and width of an image.
        inputs: The length of the vector.
        width: Channels at the coarsest stage; finer stages have half as many.
        context_features: The length of a context embedding; 0 for none.
    """

    def __init__(
        self, shape: Sequence[int], inputs: int, width: int, context_features: int = 0
    ) -> None:
        super().__init__()
        channels, *size = shape
        *self.sizes, self.coarsest = halvings(size[0], size[1])
        stages = _stage_channels(len(self.sizes), width)
        self.width = width
        features = width * math.prod(self.coarsest)
        self.stem = nn.Linear(inputs, features)
        self.context = nn.Linear(context_features, features) if context_features else None
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(inputs_, outputs, 4, stride=2, padding=1)
            for inputs_, outputs in zip(stages[::-1], [*stages[-2::-1], channels], strict=True)
        )

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The image for each vector.

        Args:
            z: Vectors, (batch, inputs).
            context: Context embeddings, (batch, context_features), if there are any.

        Returns:
            The images, (batch, *shape), unbounded.
        """
        hidden: Tensor = self.stem(z)
        if self.context is not None:
            hidden = hidden + self.context(context)
        hidden = hidden.reshape(-1, self.width, *self.coarsest)
        for convolution, (height, width) in zip(
            self.convolutions, reversed(self.sizes), strict=True
        ):
            hidden = convolution(functional.silu(hidden))[..., :height, :width]
        return hidden


class DenseEncoder(nn.Module):
    """From data of any shape to a vector.

    Args:
        shape: The shape of one example.
        outputs: The length of the vector.
        hidden: The sizes of the hidden layers.
        context_features: The length of a context embedding; 0 for none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        hidden: Sequence[int],
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.network = mlp([math.prod(shape) + context_features, *hidden, outputs])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The vector for each example.

        Args:
            x: The data, (batch, *shape).
            context: Context embeddings, (batch, context_features), if there are any.

        Returns:
            The vectors, (batch, outputs).
        """
        result: Tensor = self.network(_join(x.flatten(1), context))
        return result


class DenseDecoder(nn.Module):
    """From a vector to data of any shape.

    Args:
        shape: The shape of one example.
        inputs: The length of the vector.
        hidden: The sizes of the hidden layers.
        context_features: The length of a context embedding; 0 for none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        inputs: int,
        hidden: Sequence[int],
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.network = mlp([inputs + context_features, *hidden, math.prod(shape)])

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The example for each vector.

        Args:
            z: Vectors, (batch, inputs).
            context: Context embeddings, (batch, context_features), if there are any.

        Returns:
            The examples, (batch, *shape), unbounded.
        """
        result: Tensor = self.network(_join(z, context))
        return result.reshape(-1, *self.shape)


class ContextEncoder(nn.Module):
    """From a context, planes or a vector, to an embedding that encoder and decoder read.

    Args:
        shape: The shape of one context, (C, H, W) or (F,).
        width: Channels at the coarsest stage, for planes.
        features: The length of the embedding.
    """

    def __init__(self, shape: Sequence[int], width: int, features: int = CONTEXT_FEATURES) -> None:
        super().__init__()
        self.features = features
        self.network: nn.Module = (
            ConvEncoder(shape, features, width)
            if suits_convolution(shape)
            else nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), features))
        )

    def forward(self, context: Tensor) -> Tensor:
        """The embedding of each context.

        Args:
            context: Contexts, (batch, *shape).

        Returns:
            The embeddings, (batch, features).
        """
        return functional.silu(self.network(context))
