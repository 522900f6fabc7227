r"""A joint Newton step on decoder values and masses.

The function is :math:`f(\pi, \psi) = -\sum_i w_i \ln Z_i + \sum_a \pi_a`; its minimum over
:math:`\pi \ge 0` has masses that sum to 1, and is the free energy over T, plus 1. Its Hessian is

.. math:: H = \begin{pmatrix} 0 & \\ & B \end{pmatrix} + S^T W S, \qquad
    B_a = \frac{m_a}{T}\Bigl(I - \frac{C_a}{T}\Bigr),

(up to terms that vanish with the gradient), row i of S holding
:math:`(q_{ia}/\pi_a,\; q_{ia}(x_i - \psi_a)/T)`. :math:`C_a` is the covariance of the data under
the weights of value a, and :math:`B_a` is positive at a global optimum, where
:math:`\lambda_{\max}(C_a) \le T` [D3, D9]. So the values can be eliminated exactly through an
n x n system (Woodbury), and what is left is a convex quadratic program in the masses alone:
:math:`\tfrac12 |L^{-1}(R p - b)|^2` plus a linear term, with
:math:`L L^T = I + S_\psi B^{-1} S_\psi^T`. It sets masses to exactly zero, which is how values die.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from geco_theory.mixtures import Mixture
from geco_theory.nonnegative import nonnegative_minimum
from geco_theory.standard_data import Array, StandardData

_NEGLIGIBLE_WEIGHT = 1e-9
_LEAST_CURVATURE = 0.02
_RIDGE = 1e-11


@dataclass(frozen=True)
class Direction:
    """A Newton step and how far f should fall along it.

    Args:
        masses: (k,) change of the masses; the full step keeps them non-negative.
        values: (k, r) change of the values.
        slope: Derivative of f along the step; negative.
    """

    masses: Array
    values: Array
    slope: float


def newton_direction(
    data: StandardData, mixture: Mixture, temperature: float, q: Array
) -> Direction:
    """The Newton step at `mixture`, whose responsibilities (n, k) are `q`."""
    rows, weights = data.rows, data.weights
    n, k = q.shape
    masses = mixture.masses
    share = weights[:, None] * q
    total = share.sum(axis=0)
    means = (share.T @ rows) / total[:, None]
    pull = means - mixture.values
    root = np.sqrt(weights)

    system = np.zeros((n, n))
    free_move = np.empty_like(pull)
    factors = []
    for a in range(k):
        local = share[:, a] / total[a]
        support = np.flatnonzero(local > _NEGLIGIBLE_WEIGHT)
        gap = rows[support] - mixture.values[a]
        curvature = np.eye(rows.shape[1]) - (gap * local[support, None]).T @ gap / temperature
        factor = _safe_root(curvature)
        # columns of `factor` F with F F^T = (I - C/T)^-1
        free_move[a] = factor @ (factor.T @ pull[a])
        scaled = (root[support] * q[support, a] / np.sqrt(temperature * total[a]))[:, None] * (
            gap @ factor
        )
        system[np.ix_(support, support)] += scaled @ scaled.T
        factors.append((support, gap, factor))

    shift = np.zeros(n)  # S_psi times the move that the values make on their own
    for a, (support, gap, _) in enumerate(factors):
        shift[support] += root[support] * q[support, a] / temperature * (gap @ free_move[a])
    system[np.diag_indices(n)] += 1.0
    lower = linalg.cholesky(system, lower=True, overwrite_a=True, check_finite=False)
    relative = root[:, None] * (q / masses)
    design = linalg.solve_triangular(lower, relative, lower=True, check_finite=False)
    target = linalg.solve_triangular(lower, root - shift, lower=True, check_finite=False)
    gram = design.T @ design
    gram[np.diag_indices(k)] += _RIDGE * np.trace(gram) / k
    linear = design.T @ target - 1.0 + relative.T @ root
    new_masses = nonnegative_minimum(gram, linear)
    dual = linalg.solve_triangular(
        lower, design @ new_masses - target, lower=True, trans=1, check_finite=False
    )
    move = free_move.copy()
    for a, (support, gap, factor) in enumerate(factors):
        force = (root[support] * q[support, a] * dual[support] / total[a]) @ gap
        move[a] -= factor @ (factor.T @ force)
    change = new_masses - masses
    slope = float(
        change @ (1.0 - total / masses) - np.sum(total[:, None] * pull * move) / temperature
    )
    return Direction(change, move, slope)


def _safe_root(curvature: Array) -> Array:
    """F with F F^T the inverse of the matrix, its eigenvalues first raised to a least value."""
    try:
        lower = linalg.cholesky(
            curvature - _LEAST_CURVATURE * np.eye(len(curvature)), lower=True, check_finite=False
        )
    except linalg.LinAlgError:
        values, vectors = linalg.eigh(curvature, check_finite=False)
        return np.asarray(vectors / np.sqrt(np.maximum(np.abs(values), _LEAST_CURVATURE)))
    del lower
    lower = linalg.cholesky(curvature, lower=True, check_finite=False)
    inverse = linalg.solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False)
    return np.asarray(inverse.T)
