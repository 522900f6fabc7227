r"""Means over every patch of an image, without a copy of any patch.

A mean over a box is a mean over windows of its first axis, then of its second, and so on: a box of
:math:`k \times k` costs :math:`2 k` additions of maps of the image's own size, in one operation
for each axis, where an unfolded copy has :math:`k^2` such maps. Pooling layers would do the same,
but took 5 times as long on a CPU (`benchmarks/patch_correlation.py`); convolutions and cumulative
sums would lose digits, the former where a GPU or autocast rounds their inputs, the latter in long
rows.
"""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["box_mean", "box_spread", "check_patches", "patch_shape", "rounding_floor"]

# Rounding errors of a variance E[a^2] - E[a]^2 are a few units in the last place of E[a^2]; a
# floor of this many such units keeps them small against it.
_UNITS = 32


def patch_shape(value: int | Sequence[int], name: str) -> tuple[int, ...]:
    """Checks a patch size or a stride and returns it as a tuple.

    Args:
        value: One integer for every spatial axis, or one per axis.
        name: The parameter's name, for the errors.

    Returns:
        The integers; a single one stands for every axis.

    Raises:
        TypeError: If `value` holds anything but integers.
        ValueError: If an integer is not positive, or there is none.
    """
    sizes: tuple[Any, ...] = tuple(value) if _many(value) else (value,)  # type: ignore[arg-type]
    if any(isinstance(size, bool) or not isinstance(size, Integral) for size in sizes):
        raise TypeError(f"`{name}` must be a positive integer or one per axis, got {value!r}")
    if not sizes or min(sizes) < 1:
        raise ValueError(f"`{name}` must be a positive integer or one per axis, got {value!r}")
    return tuple(int(size) for size in sizes)


def _many(value: object) -> bool:
    """Whether it holds several values, as a list, a tuple or an array of numpy does."""
    return isinstance(value, Iterable) and not isinstance(value, (str, Tensor))


def check_patches(
    x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns patch size and stride for every spatial axis of `x`, (batch, channels, ...).

    Raises:
        ValueError: If `x` has no spatial axis, their number is another one than that of `size`
            or `stride`, or a patch is larger than the image.
    """
    space = tuple(x.shape[2:])
    if not space:
        raise ValueError(
            f"`x` must be (batch, channels, ...) with at least one axis of space for patches, "
            f"got shape {tuple(x.shape)}"
        )
    full = []
    for name, value in (("patch size", size), ("stride", stride)):
        if len(value) not in (1, len(space)):
            raise ValueError(
                f"the {name} {value} is for {len(value)} axes of space, but `x` has shape "
                f"{tuple(x.shape)} with {len(space)}"
            )
        full.append(value * len(space) if len(value) == 1 else value)
    if any(patch > length for patch, length in zip(full[0], space, strict=True)):
        raise ValueError(
            f"a patch of {full[0]} does not fit into `x` of shape {tuple(x.shape)}; choose a "
            f"patch size of at most {min(space)}"
        )
    return full[0], full[1]


def box_mean(values: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The mean over every box of `size` in the trailing axes, at every `stride`-th location.

    Args:
        values: (..., *space), float32 or wider.
        size: The box, one number per axis of space.
        stride: The step between boxes, one number per axis of space.

    Returns:
        (..., *locations), with (length - size) // stride + 1 locations per axis.
    """
    # a compiler derives as good a gradient, and dynamo warns of every custom function
    compiling = torch.compiler.is_compiling()
    return (_box_mean if compiling else _BoxMean.apply)(values, size, stride)


def box_spread(
    values: Tensor, space: tuple[int, ...], size: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """The transpose of `box_mean`: every element gets the sum over the boxes that hold it.

    Args:
        values: One number for each box, (..., *locations).
        space: The lengths of the axes of space.
        size: The box, one number per axis of space.
        stride: The step between boxes, one number per axis of space.

    Returns:
        (..., *space), divided by the box's number of elements.
    """
    axes = zip(space, size, stride, strict=True)
    for axis, (full, length, step) in enumerate(axes, start=values.ndim - len(size)):
        if step > 1:
            shape = [*values.shape]
            shape[axis] = full - length + 1
            spread = values.new_zeros(shape)
            spread[(slice(None),) * axis + (slice(None, None, step),)] = values
            values = spread
    margins = [margin for length in reversed(size) for margin in (length - 1,) * 2]
    return box_mean(pad(values, margins), size, (1,) * len(size))


def _box_mean(values: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    first = values.ndim - len(size)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True), start=first):
        values = values.unfold(axis, length, step).mean(-1)
    return values


class _BoxMean(torch.autograd.Function):
    """The mean over boxes: linear, so its gradient needs no map to be kept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        return _box_mean(values, size, stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, ctx.size, ctx.stride = inputs
        ctx.space = values.shape[values.ndim - len(ctx.size) :]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return box_spread(gradient, ctx.space, ctx.size, ctx.stride), None, None


def rounding_floor(second_moment: Tensor, share: float = 1.0) -> Tensor:
    """What a variance computed from this second moment cannot resolve, without gradient."""
    return share * _UNITS * torch.finfo(second_moment.dtype).eps * second_moment.detach()
