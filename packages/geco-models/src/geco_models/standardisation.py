r"""The units of the data and the units in which the networks work.

Networks see :math:`u = (x - m) / s` and paint :math:`x = m + s u`, so that one learning rate and
one initialisation serve data in any units and with any offset.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geco_models.validation import as_number

__all__ = ["Numbers", "Standardisation"]

Numbers = float | Sequence[float]
"""One number, or one for each channel (for vectors: for each feature)."""


class Standardisation(nn.Module):
    """The affine map between the data's units and the networks'.

    Args:
        mean: What is subtracted, in the units of the data: one number, or one for each entry of
            the first dimension of an example (channels of an image, features of a vector).
        scale: What the data are then divided by, positive, likewise.
        shape: The shape of one example.

    Raises:
        TypeError: If one of them is not made of numbers.
        ValueError: If a number is not finite, a scale is not positive, or there are neither one
            nor as many numbers as channels.
    """

    def __init__(self, mean: Any, scale: Any, shape: Sequence[int]) -> None:
        super().__init__()
        self.mean = _numbers(mean, "input_mean", shape[0])
        self.scale = _numbers(scale, "input_scale", shape[0])
        if min(self.scale if isinstance(self.scale, tuple) else (self.scale,)) <= 0:
            raise ValueError(f"`input_scale` must be positive, got {scale!r}")
        for name, value in (("means", self.mean), ("scales", self.scale)):
            # single numbers stay numbers: a plain model has no buffers
            tensor = torch.tensor(value) if isinstance(value, tuple) else None
            if tensor is not None:
                tensor = tensor.view(-1, *[1] * (len(shape) - 1))
            self.register_buffer(name, tensor)
        self.means: Tensor | None
        self.scales: Tensor | None

    @property
    def identity(self) -> bool:
        """Whether nothing is changed."""
        return self.mean == 0 and self.scale == 1

    def forward(self, x: Tensor) -> Tensor:
        """From the data's units to the networks': :math:`(x - m) / s`."""
        if self.mean != 0:
            x = x - _pick(self.means, self.mean)
        if self.scale != 1:
            x = x / _pick(self.scales, self.scale)
        return x

    def stretch(self, u: Tensor) -> Tensor:
        """A difference or a standard deviation in the data's units: :math:`s u`."""
        return u if self.scale == 1 else u * _pick(self.scales, self.scale)

    def inverse(self, u: Tensor) -> Tensor:
        """From the networks' units to the data's: :math:`m + s u`."""
        x = self.stretch(u)
        return x if self.mean == 0 else x + _pick(self.means, self.mean)


def _pick(tensor: Tensor | None, number: Any) -> Any:
    """The numbers of the channels where there are several, else the one number."""
    return number if tensor is None else tensor


def _numbers(value: Any, name: str, channels: int) -> float | tuple[float, ...]:
    if hasattr(value, "tolist"):  # tensors and arrays
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str):
        return as_number(value, name)
    numbers = tuple(as_number(item, name) for item in value)
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) != channels:
        msg = f"`{name}` must be one number or {channels} (one per channel), got {len(numbers)}"
        raise ValueError(msg)
    return numbers
