"""Temperatures between which the number of values changes, and which values those are."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from geco_theory._typing import Array
from geco_theory.free_energy.solution import Solution

__all__ = ["brackets", "match"]


def brackets(
    solve: Callable[[float, Solution, Solution], Solution],
    upper: Solution,
    lower: Solution,
    narrow: Callable[[int, float], bool],
) -> Iterator[tuple[Solution, Solution]]:
    """Pairs of solutions with more values at the colder one, by bisection, hottest pair first.

    Args:
        solve: Solves a temperature, given the solutions above and below it.
        upper: The solution at the higher temperature.
        lower: The solution at the lower temperature.
        narrow: Whether a pair needs no further bisection, from the number of values between the
            two and their distance in ln T.
    """
    pending = [(upper, lower)]
    while pending:
        high, low = pending.pop()
        number = low.mixture.size - high.mixture.size
        if number <= 0:
            continue
        if narrow(number, float(np.log(high.temperature / low.temperature))):
            yield high, low
            continue
        middle = solve(float(np.sqrt(high.temperature * low.temperature)), high, low)
        pending.append((middle, low))
        pending.append((high, middle))


def match(many: Array, few: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Match every point of `few` (b, r) to one of `many` (a, r), at the least sum of squares.

    Returns:
        For each of `few` the index of its partner, the indices of `many` that are left over, and
        all distances (a, b).
    """
    gaps = np.linalg.norm(many[:, None] - few[None], axis=2)
    taken = linear_sum_assignment(gaps.T**2)[1]
    return taken, np.setdiff1d(np.arange(len(many)), taken), gaps
