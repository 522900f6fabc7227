"""Small strictly convex quadratic programs under non-negativity.

Block principal pivoting: Portugal, Judice and Vicente (1994).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from geco_theory._typing import Array


def nonnegative_minimum(
    gram: Array, linear: Array, support: NDArray[np.bool_] | None = None
) -> Array:
    r"""Minimise :math:`\tfrac12 p^T G p - h^T p` over :math:`p \ge 0`.

    Block pivoting: the free variables are solved for at once, those that come out negative are
    fixed at zero, fixed ones with a negative gradient are freed. If the number of wrong signs
    stops falling, one variable is exchanged at a time, which cannot cycle.

    Args:
        gram: (k, k) positive definite matrix G; only its lower triangle is read.
        linear: (k,) vector h.
        support: (k,) variables that are free at first; all of them if None.

    Returns:
        (k,) the minimiser.
    """
    k = len(linear)
    tiny = 1e-13 * max(1.0, float(np.abs(linear).max()))
    free = np.ones(k, dtype=bool) if support is None else support.copy()
    best, patience = k + 1, 3
    solution = np.zeros(k)
    for _ in range(5 * k + 20):
        solution, gradient = _solve_on(gram, linear, free)
        wrong = (free & (solution < 0)) | (~free & (gradient < -tiny))
        count = int(wrong.sum())
        if count == 0:
            break
        if count < best:
            best, patience = count, 3
        elif patience > 0:
            patience -= 1
        else:  # exchange only the last wrong variable
            last = np.flatnonzero(wrong)[-1]
            wrong = np.zeros(k, dtype=bool)
            wrong[last] = True
        free ^= wrong
    return np.maximum(solution, 0.0)


def _solve_on(gram: Array, linear: Array, free: NDArray[np.bool_]) -> tuple[Array, Array]:
    """The minimiser over the free variables, and the gradient there."""
    index = np.flatnonzero(free)
    solution = np.zeros(len(linear))
    gradient = -linear.copy()
    if len(index) == 0:
        return solution, gradient
    whole = len(index) == len(linear)
    part = gram if whole else gram[np.ix_(index, index)]
    solution[index], failed = linalg.lapack.dposv(part, linear[index], lower=1)[1:]
    if failed:  # numerically singular: the smallest solution of least squares
        full = np.tril(part) + np.tril(part, -1).T
        solution[index] = linalg.lstsq(full, linear[index], check_finite=False)[0]
    if not whole:
        fixed = np.flatnonzero(~free)
        rows = np.where(fixed[:, None] >= index[None, :], gram[np.ix_(fixed, index)], 0.0)
        rows += np.where(fixed[:, None] < index[None, :], gram[np.ix_(index, fixed)].T, 0.0)
        gradient[fixed] += rows @ solution[index]
    return solution, gradient
