"""Checks of arguments that several models share."""

import math
import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor

__all__ = ["as_number", "as_positive", "as_shape", "check_tensor"]


def as_positive(value: Any, name: str, minimum: int = 1) -> int:
    """An integer argument of at least `minimum`.

    Args:
        value: What was passed.
        name: The argument's name, for the message.
        minimum: The smallest allowed value.

    Returns:
        The integer.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is too small.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"`{name}` must be an integer of at least {minimum}, got {value!r}")
    number = operator.index(value)
    if number < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, got {number}")
    return number


def as_shape(shape: Any, name: str = "shape", dims: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The shape of one example (no batch dimension) as a tuple.

    Args:
        shape: What was passed: a sequence of positive integers.
        name: The argument's name, for the message.
        dims: The allowed numbers of dimensions; any from 1 upwards if empty.

    Returns:
        The shape.

    Raises:
        TypeError: If it is not a sequence of integers.
        ValueError: If a size is not positive or the number of dimensions is not allowed.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(f"`{name}` must be a sequence of integers, got {shape!r}")
    sizes = tuple(as_positive(size, name) for size in shape)
    if not sizes or (dims and len(sizes) not in dims):
        wanted = " or ".join(map(str, dims)) or "at least 1"
        raise ValueError(f"`{name}` must have {wanted} dimensions, got {sizes}")
    return sizes


def check_tensor(x: Any, name: str, shape: Sequence[int], owner: str) -> Tensor:
    """A batch, once its type and the shape of its examples are right; values are not read.

    Args:
        x: What was passed.
        name: The argument's name, for the message.
        shape: The shape of one example, without the batch dimension.
        owner: The name of the class that is asked, for the message.

    Returns:
        The same tensor.

    Raises:
        TypeError: If it is not a floating-point tensor.
        ValueError: If its shape is not (batch, *shape).
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        msg = f"`{name}` must be floating point, got {x.dtype}: 8-bit images need `x / 255`"
        raise TypeError(msg)
    if x.dim() != len(shape) + 1 or tuple(x.shape[1:]) != tuple(shape):
        wanted = ", ".join(map(str, shape))
        msg = f"`{name}` must be (batch, {wanted}) for this {owner}, got {tuple(x.shape)}"
        raise ValueError(msg)
    return x


def as_number(value: Any, name: str) -> float:
    """A finite real number.

    Args:
        value: What was passed: a number, NumPy's included, or a tensor of one element.
        name: The argument's name, for the message.

    Returns:
        The number.

    Raises:
        TypeError: If it is no real number.
        ValueError: If it is not finite.
    """
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError("text and truth values are no numbers")
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        shown = " ".join(repr(value).split())
        raise TypeError(f"`{name}` must be a number, got {shown}") from error
    if not math.isfinite(number):
        raise ValueError(f"`{name}` must be finite, got {number}")
    return number
