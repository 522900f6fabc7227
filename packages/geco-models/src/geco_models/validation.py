"""Checks of arguments that several models share."""

import operator
from collections.abc import Sequence
from typing import Any

__all__ = ["as_positive", "as_shape"]


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
