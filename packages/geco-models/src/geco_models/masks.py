"""Data of which parts are missing: padded sequences, pixels that were not observed.

A mask is boolean, True where an element was observed, of the shape of the data, where any axis may
have size 1. What was not observed may hold anything, NaN included: models replace it by the middle
of the data before their networks see it. Give the same mask to the constraint, so that padding
counts neither in the error nor in what the posterior depends on.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

__all__ = ["ObservedElements", "check_mask", "length_mask"]


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """The mask of sequences that were padded at their end.

    Args:
        lengths: The lengths, (batch,), integers between 0 and `size`.
        size: The length that all were padded to.

    Returns:
        True before the end of each sequence, (batch, 1, size): one row for all channels.

    Raises:
        TypeError: If the lengths are not integers.
        ValueError: If they are not (batch,), or, on the CPU, one is outside the range.

    Example:
        >>> import torch
        >>> length_mask(torch.tensor([1, 3]), 3)
        tensor([[[ True, False, False]],
        <BLANKLINE>
                [[ True,  True,  True]]])
    """
    given: Any = lengths
    if not isinstance(given, Tensor) or given.dtype not in _INTEGERS:
        shown = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"`lengths` must be a tensor of integers, got {shown}")
    if lengths.dim() != 1:
        raise ValueError(f"`lengths` must be (batch,), got {tuple(lengths.shape)}")
    # values are read where that waits for nothing: not on a device, nor of tracers' subclasses
    if type(given) is Tensor and given.is_cpu and not torch.compiler.is_compiling():
        outside = lengths[(lengths < 0) | (lengths > size)]
        if outside.numel():
            msg = f"`lengths` must lie in 0 to {size}, the padded length, got {outside[0].item()}"
            raise ValueError(msg)
    return torch.arange(size, device=lengths.device) < lengths[:, None, None]


def check_mask(mask: Any, x: Tensor) -> Tensor:
    """A mask, once its type and shape fit the data.

    Args:
        mask: What was passed.
        x: The data, (batch, ...).

    Returns:
        The same tensor.

    Raises:
        TypeError: If it is not a boolean tensor.
        ValueError: If its shape is not that of `x` with some axes of size 1.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        shown = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        msg = f"`mask` must be a boolean tensor, True where an element was observed, got {shown}"
        raise TypeError(msg)
    if mask.dim() != x.dim() or any(
        size not in (1, full) for size, full in zip(mask.shape, x.shape, strict=True)
    ):
        msg = (
            f"`mask` must have the shape of `x`, {tuple(x.shape)}, where any axis may have size "
            f"1, got {tuple(mask.shape)}"
        )
        raise ValueError(msg)
    return mask


class ObservedElements(Distribution):
    """The density of the observed elements of an example, the others left out.

    Args:
        whole: The density of whole examples, of independent elements.
        mask: True where an element was observed.
    """

    arg_constraints = {}  # noqa: RUF012  # what the base class calls it

    def __init__(self, whole: "Independent[Any]", mask: Tensor) -> None:
        self.whole, self.mask = whole, mask
        super().__init__(whole.batch_shape, whole.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The means of all elements, observed or not."""
        return self.whole.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of what was observed, (batch,); elements that were not hold anything."""
        filled = torch.where(self.mask, value, self.whole.mean)
        each = self.whole.base_dist.log_prob(filled)
        each = torch.where(self.mask, each, 0.0)
        return each.sum(tuple(range(1, each.dim())))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of whole examples."""
        return self.whole.sample(sample_shape)
