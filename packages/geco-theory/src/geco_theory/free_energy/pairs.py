r"""Exponents of all pairs, and how exact they are.

:math:`|x - y|^2 / 2T` is expanded, so that a matrix product gives it. That loses about
:math:`\epsilon |x|^2 / T`: enough to make a certificate meaningless where one point lies far out
and the temperature is that of the others. There the differences are taken one by one.
"""

import numpy as np
from scipy.spatial.distance import cdist

from geco_theory._typing import Array

__all__ = ["EPSILON", "expansion_holds", "exponents", "rounding"]

EPSILON = float(np.finfo(np.float64).eps)
_LARGEST = 5e4  # |x|^2/T up to which the expansion loses less than about 1e-11
_FACTOR = 2.0  # of the loss, over the rounding of one square


def expansion_holds(largest_square: float, temperature: float) -> bool:
    """Whether expanded squares of points within that distance of the origin are exact enough."""
    return largest_square <= _LARGEST * temperature


def exponents(rows: Array, points: Array, temperature: float) -> Array:
    r""":math:`|x_i - y_a|^2 / 2T`, shape (n, k), from the differences themselves."""
    reach = np.sqrt(2.0 * temperature)
    return np.asarray(cdist(rows / reach, points / reach, "sqeuclidean"))


def rounding(largest_square: float, temperature: float, weights: Array, lengths: Array) -> float:
    r"""What rounding can do to ln D at most, in the first place.

    Expanded squares lose :math:`\epsilon |x|^2 / T`. From differences, what is left is the
    rounding of the rows themselves: :math:`\epsilon |x_i|` each, times the distance from the
    values over T.

    Args:
        largest_square: Squared distance of the farthest row from the origin.
        temperature: T, in standard units.
        weights: (n,) of the rows.
        lengths: (n,) of the rows, times the root mean square distance from their values.
    """
    if expansion_holds(largest_square, temperature):
        return _FACTOR * EPSILON * (1.0 + largest_square / temperature)
    return EPSILON * (_FACTOR + float(weights @ lengths) / temperature)
