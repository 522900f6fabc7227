"""Channels in multiples of 8 where convolutions run in half precision, as matrix units want them.

Planes and weights are padded with zeros on the way; parameters and results stay as they are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AlignedConv2d", "aligned", "widened", "working_type"]

_HALF = (torch.float16, torch.bfloat16)
_MULTIPLE = 8


def working_type(weight: Tensor) -> torch.dtype:
    """The type that convolutions run in: autocast's where that is on, else the weights'."""
    device = weight.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def widened(planes: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """Groups of channels continued with zeros to multiples of 8, if the type is half precision.

    Args:
        planes: Planes, a weight or a bias.
        axis: The axis of the channels.
        sizes: The sizes of the groups along it.
    """
    if planes.dtype not in _HALF or all(size % _MULTIPLE == 0 for size in sizes):
        return planes
    behind = (0, 0) * (planes.dim() - 1 - axis)
    parts = [
        functional.pad(part, (*behind, 0, -size % _MULTIPLE)) if size % _MULTIPLE else part
        for part, size in zip(torch.split(planes, list(sizes), dim=axis), sizes, strict=True)
    ]
    return torch.cat(parts, dim=axis) if len(parts) > 1 else parts[0]


def aligned(planes: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution that keeps the size, its input channels padded where half precision asks."""
    kind, channels = working_type(weight), planes.shape[1:2]
    if kind in _HALF:
        planes, weight = (widened(one.to(kind), 1, channels) for one in (planes, weight))
    return functional.conv2d(planes, weight, bias, padding=weight.shape[-1] // 2)


class AlignedConv2d(nn.Conv2d):
    """A convolution of odd kernel that keeps the size: `aligned` with parameters of its own."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of planes."""
        return aligned(input, self.weight, self.bias)
