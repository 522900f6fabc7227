"""The context of a conditional model as one vector, which encoder and decoder read."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from geco_models.networks.convolutional import ConvEncoder, suits_convolution

__all__ = ["CONTEXT_FEATURES", "ContextEncoder"]

CONTEXT_FEATURES = 128


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
