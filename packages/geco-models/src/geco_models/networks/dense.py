"""Dense encoders and decoders for data of any shape: layers with SiLU between them.

There is no batch normalisation and no dropout: a model in evaluation computes what it computed in
training.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from geco_models.tolerance import modulated, modulations

__all__ = ["DenseDecoder", "DenseEncoder"]


class Dense(nn.Module):
    """Dense layers with SiLU between them (none after the last).

    Args:
        sizes: Input, hidden and output sizes.
        tolerance: The range of tolerances that modulate the hidden layers; None for none.
    """

    def __init__(self, sizes: Sequence[int], tolerance: Sequence[float] | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.SiLU()]
        self.network = nn.Sequential(*layers[:-1])
        self.modulations = modulations(sizes[1:-1], tolerance)

    def run(self, x: Tensor, kappa: Tensor | None = None) -> Tensor:
        """From (batch, sizes[0]) to (batch, sizes[-1])."""
        if self.modulations is None:
            result: Tensor = self.network(x)
            return result
        for index, layer in enumerate(self.network):
            x = layer(x)
            if index % 2 == 0:  # a linear layer
                x = modulated(self.modulations, index // 2, x, kappa)
        return x


class DenseEncoder(Dense):
    """From data of any shape to a vector.

    Args:
        shape: The shape of one example.
        outputs: The length of the vector.
        hidden: The sizes of the hidden layers.
        context_features: The length of a context embedding; 0 for none.
        tolerance: The range of tolerances that modulate the hidden layers; None for none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        hidden: Sequence[int],
        context_features: int = 0,
        tolerance: Sequence[float] | None = None,
    ) -> None:
        super().__init__([math.prod(shape) + context_features, *hidden, outputs], tolerance)

    def forward(
        self, x: Tensor, context: Tensor | None = None, kappa: Tensor | None = None
    ) -> Tensor:
        """The vector for each example.

        Args:
            x: The data, (batch, *shape).
            context: Context embeddings, (batch, context_features), if there are any.
            kappa: Tolerances, (batch,), if the network has a range of them.

        Returns:
            The vectors, (batch, outputs).
        """
        return self.run(_join(x.flatten(1), context), kappa)


class DenseDecoder(Dense):
    """From a vector to data of any shape.

    Args:
        shape: The shape of what is made.
        inputs: The length of the vector.
        hidden: The sizes of the hidden layers.
        context_features: The length of a context embedding; 0 for none.
        tolerance: The range of tolerances that modulate the hidden layers; None for none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        inputs: int,
        hidden: Sequence[int],
        context_features: int = 0,
        tolerance: Sequence[float] | None = None,
    ) -> None:
        super().__init__([inputs + context_features, *hidden, math.prod(shape)], tolerance)
        self.shape = tuple(shape)

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
        return self.run(_join(z, context), kappa).reshape(-1, *self.shape)


def _join(x: Tensor, context: Tensor | None) -> Tensor:
    return x if context is None else torch.cat([x, context.to(x.dtype)], dim=1)
