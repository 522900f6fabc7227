r"""The paper's detector of critical temperatures, and how many transitions it finds.

The caption of Figure 2 [paper]: critical temperatures are the local maxima of the second
derivative of the expected reconstruction error with respect to beta, sorted by height, the top
three kept. Here beta is the temperature (a decoder of unit variance).
"""

import numpy as np

from geco_theory.standard_data import Array


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


def detect(temperature: Array, distortion: Array, number: int = 3) -> Array:
    """The temperatures of the highest local maxima of the size of the second derivative.

    Args:
        temperature: (t,) ascending.
        distortion: (t,) expected reconstruction error.
        number: How many maxima to keep.

    Returns:
        At most `number` temperatures, highest maximum first; none at the ends of the grid.
    """
    height = np.abs(second_derivative(temperature, distortion))[1:-1]
    # a maximum needs a lower neighbour on both sides: where the grid ends there is none
    peaks = np.flatnonzero((height[1:-1] > height[:-2]) & (height[1:-1] >= height[2:])) + 1
    order = peaks[np.argsort(-height[peaks], kind="stable")]
    return np.asarray(temperature[1:-1][order[:number]])


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
