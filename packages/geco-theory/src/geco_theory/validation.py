"""Checks of scalar arguments: the value passes through, or one sentence says what is allowed."""

import math
from numbers import Integral, Real

import numpy as np

__all__ = ["positive", "unmasked", "whole_number"]


def positive(value: object, name: str) -> float:
    """A positive, finite number as a float.

    Raises:
        TypeError: `value` is not a number (booleans are not).
        ValueError: it is not positive and finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a positive number, got {value!r}.")
    number = float(value)
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"`{name}` must be positive and finite, got {value!r}.")
    return number


def whole_number(value: object, name: str, *, least: int) -> int:
    """A whole number that is at least `least`.

    Raises:
        TypeError: `value` is not an integer (booleans are not).
        ValueError: it is smaller than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}.")
    number = int(value)
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}, got {number}.")
    return number


def unmasked(values: object, name: str) -> None:
    """Refuse masked values: numpy would drop the mask and use what lies behind it.

    Raises:
        ValueError: `values` is a masked array with something masked.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        number = int(np.ma.getmaskarray(values).sum())
        raise ValueError(
            f"`{name}` must have no masked values, got {number}: drop those samples, or fill them "
            "with numpy.ma.filled."
        )
