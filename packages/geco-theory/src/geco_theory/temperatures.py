"""Which temperatures to solve, and which one to show first."""

import itertools
from numbers import Integral

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geco_theory.checks import whole_number
from geco_theory.standard_data import Array

_DEFAULT_NUMBER = 40
_LOWEST = 1 / 30  # of the stability temperature
_ABOVE_TOP = 1.05  # times the top transition


def temperature_grid(wanted: int | ArrayLike | None, stability: float, top: float) -> Array:
    """The temperatures to solve, ascending.

    Args:
        wanted: Strictly monotone positive temperatures, or how many, or None.
        stability: The stability temperature of the one-value solution.
        top: The temperature of the top transition.

    Raises:
        ValueError: If `wanted` is neither.
    """
    if wanted is None:
        wanted = _DEFAULT_NUMBER
    if isinstance(wanted, Integral | bool):
        number = whole_number(wanted, "temperatures", least=2)
        return np.geomspace(stability * _LOWEST, _ABOVE_TOP * top, number)
    grid = np.asarray(wanted, dtype=np.float64)
    if grid.ndim != 1 or not len(grid) or not np.all(np.isfinite(grid) & (grid > 0)):
        raise ValueError(
            "`temperatures` must be positive finite numbers in one dimension, or how many of "
            f"them, got {wanted!r}."
        )
    steps = np.diff(grid)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise ValueError(
            "`temperatures` must be strictly ascending or strictly descending: sort them and drop "
            "repeated ones."
        )
    return np.sort(grid)


def longest_plateau(path: xr.Dataset) -> float:
    """The middle temperature of the longest run of one cluster count, at least two clusters.

    The run at the low end does not count if there the clusters are the most of all.
    """
    temperatures = path["temperature"].to_numpy()
    counts = path["n_clusters"].to_numpy()
    best, chosen = -1.0, float(temperatures[0])
    begin = 0
    for count, run in itertools.groupby(counts):
        end = begin + len(list(run))
        if count >= 2 and not (begin == 0 and count == counts.max() and count > 2):
            length = float(np.log(temperatures[end - 1] / temperatures[begin]))
            if length > best:
                best, chosen = length, float(temperatures[(begin + end - 1) // 2])
        begin = end
    return chosen
