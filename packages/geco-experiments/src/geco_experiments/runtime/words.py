"""Numbers in sentences: one run, three runs."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["counted", "named", "ranging", "spanned"]


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 run`, `3 runs`.

    Args:
        number: how many.
        one: the noun.
        many: its plural (None: with an s).
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def ranging(number: int, one: str, many: str | None = None, *, what: str = "Range") -> str:
    """What the ranges of a table are over: `One seed.` or `Range over 3 seeds.`"""
    return f"One {one}." if number == 1 else f"{what} over {counted(number, one, many)}."


def named(word: str, ones: list[str]) -> str:
    """Those that a count leaves out, in brackets after it: ` (not: a, b)`; nothing if none."""
    return f" ({word}: {', '.join(ones)})" if ones else ""


def spanned(values: NDArray[np.float64], form: str) -> str:
    """A number as text, or the least and the largest of several: `0.06 to 0.2`."""
    low, high = (f"{end:{form}}" for end in (values.min(), values.max()))
    return low if values.size == 1 else f"{low} to {high}"
