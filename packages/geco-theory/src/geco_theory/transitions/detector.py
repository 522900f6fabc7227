r"""The paper's detector of critical temperatures, and how many transitions it finds.

The caption of Figure 2 [paper]: critical temperatures are the local maxima of the second
derivative of the expected reconstruction error with respect to beta, sorted by height, the top
three kept. Here beta is the temperature (a decoder of unit variance).
"""

import numpy as np
from numpy.typing import ArrayLike

from geco_theory._typing import Array


def second_derivative(temperature: Array, distortion: Array) -> Array:
    """Second derivative on an uneven grid (three-point formula), nan at both ends; shape (t,)."""
    out = np.full(len(temperature), np.nan)
    if len(temperature) < 3:
        return out
    left = np.diff(temperature)[:-1]
    right = np.diff(temperature)[1:]
    slope = np.diff(distortion) / np.diff(temperature)
    out[1:-1] = 2.0 * (slope[1:] - slope[:-1]) / (left + right)
    return out


def detect(temperature: ArrayLike, distortion: ArrayLike, number: int = 3) -> Array:
    r"""Find critical temperatures as the caption of Figure 2 does [paper].

    They are the local maxima of the *size* of the second derivative,
    :math:`|\mathrm{d}^2 \mathrm{RE} / \mathrm{d}\beta^2|` with :math:`\beta = T`, the highest
    first: troughs of the second derivative count like peaks. Made for comparison with the
    transitions that are located exactly; on a coarse grid, or where births are many, it finds few
    of them (`PhaseTransitions.transitions_` has the share as the attribute `detector_share`).

    Args:
        temperature: (t,) different temperatures, in any order.
        distortion: (t,) expected reconstruction error at each.
        number: How many maxima to keep.

    Returns:
        At most `number` temperatures, highest maximum first; none at the ends of the grid.

    Raises:
        ValueError: If the two are not vectors of one length.
    """
    heat = np.asarray(temperature, dtype=np.float64)
    error = np.asarray(distortion, dtype=np.float64)
    if heat.ndim != 1 or heat.shape != error.shape:
        raise ValueError(
            "`temperature` and `distortion` must be vectors of one length, got shapes "
            f"{heat.shape} and {error.shape}."
        )
    order = np.argsort(heat)
    heat, error = heat[order], error[order]
    height = np.abs(second_derivative(heat, error))[1:-1]
    # a maximum needs a lower neighbour on both sides: where the grid ends there is none
    peaks = np.flatnonzero((height[1:-1] > height[:-2]) & (height[1:-1] >= height[2:])) + 1
    highest = peaks[np.argsort(-height[peaks], kind="stable")]
    return np.asarray(heat[1:-1][highest[:number]])


def share_found(found: Array, transitions: Array, temperature: Array) -> float:
    """The share of transitions with a detected temperature within one step of the grid.

    Args:
        found: (f,) detected temperatures.
        transitions: (c,) true transitions; nan is returned if there are none.
        temperature: (t,) the grid, ascending.
    """
    if len(transitions) == 0:
        return float("nan")
    step = float(np.median(np.diff(np.log(temperature))))
    if len(found) == 0:
        return 0.0
    gaps = np.abs(np.log(transitions[:, None] / found[None, :]))
    return float(np.mean(gaps.min(axis=1) <= step * (1 + 1e-9)))
