r"""Which data points stand for all of them where there are many: stratified sampling.

:math:`\ln D(x_i) \ge \ln w_i - \ln Z_i` at every data point, so a decoder value is most likely
missing where :math:`w_i / Z_i` is large: at the points that the solution explains worst. Single
outliers are such points, and a uniform sample misses nearly all of them. So both are taken: the
worst explained points, and a uniform sample for what many points need together.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geco_theory._typing import Array
from geco_theory.free_energy.data import StandardData

_SEED = 0  # of the uniform samples: the same data have the same answer


def worst_explained(data: StandardData, log_z: Array, number: int) -> NDArray[np.intp]:
    r"""Indices of the `number` rows with the largest :math:`w_i / Z_i`, largest first.

    Args:
        data: The data.
        log_z: (n,) :math:`\ln Z_i` of the solution.
        number: How many; all rows if there are no more.
    """
    height = np.log(data.weights) - log_z
    if number < len(height):
        chosen = np.argpartition(-height, number)[:number]
    else:
        chosen = np.arange(len(height))
    return chosen[np.argsort(-height[chosen], kind="stable")]


def uniform_sample(data: StandardData, number: int) -> NDArray[np.intp]:
    """Indices of `number` rows, ascending, the same at every call; all if there are no more."""
    n = len(data.rows)
    if number >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(_SEED).choice(n, number, replace=False))


def climbing_starts(data: StandardData, log_z: Array, number: int) -> Array:
    """Rows to ascend from: all, or `number` of them, half worst explained, half at random."""
    if number >= len(data.rows):
        return data.rows
    worst = worst_explained(data, log_z, number // 2)
    return data.rows[np.union1d(worst, uniform_sample(data, number - len(worst)))]


def stratified_part(
    data: StandardData, log_z: Array, worst: int, others: int
) -> tuple[StandardData, Array]:
    """The worst explained rows as they are, and a sample of the others that stands for all others.

    Returns:
        The part, whose weights sum to those of all data, and ln Z of its rows.
    """
    first = worst_explained(data, log_z, worst)
    rest = np.ones(len(data.rows), dtype=bool)
    rest[first] = False
    left = np.flatnonzero(rest)
    second = left[np.random.default_rng(_SEED + 1).choice(len(left), others, replace=False)]
    share = data.weights[left].sum() / data.weights[second].sum()
    chosen = np.concatenate([first, second])
    weights = np.concatenate([data.weights[first], share * data.weights[second]])
    return replace(data, rows=data.rows[chosen], weights=weights), log_z[chosen]
