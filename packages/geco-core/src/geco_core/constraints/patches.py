"""Means over every patch of an image, without a copy of any patch.

A mean over a box is a mean over its first axis, then over its second, and so on: one pooling per
axis on maps of the image's own size. An unfolded copy would be as many times larger as a patch
has elements.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["box_mean", "check_patches", "patch_shape", "rounding_floor"]

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
    sizes = tuple(value) if isinstance(value, Sequence) else (value,)
    if any(isinstance(size, bool) or not isinstance(size, int) for size in sizes):
        raise TypeError(f"`{name}` must be a positive integer or one per axis, got {value!r}")
    if not sizes or min(sizes) < 1:
        raise ValueError(f"`{name}` must be a positive integer or one per axis, got {value!r}")
    return sizes


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
    first = values.ndim - len(size)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True), start=first):
        if length == 1 and step == 1:
            continue
        shape = values.shape
        before, after = shape[:axis].numel(), shape[axis + 1 :].numel()
        # always the 2-d pooling: the 3-d one has no deterministic gradient on a GPU
        pooled = avg_pool2d(values.reshape(before, 1, shape[axis], after), (length, 1), (step, 1))
        values = pooled.reshape(*shape[:axis], pooled.shape[2], *shape[axis + 1 :])
    return values


def rounding_floor(second_moment: Tensor) -> Tensor:
    """What a variance computed from this second moment cannot resolve, without gradient."""
    return _UNITS * torch.finfo(second_moment.dtype).eps * second_moment.detach()
