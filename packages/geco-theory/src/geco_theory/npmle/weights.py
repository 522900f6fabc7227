r"""The masses alone, at fixed values: a convex problem, by the constrained Newton method.

Wang (2007), "On fast computation of the non-parametric maximum likelihood estimate of a mixing
distribution": with :math:`S_{ia} = q_{ia}/\pi_a` each step is the least-squares problem

.. math:: \min_{p \ge 0} \sum_i w_i \Bigl(\sum_a S_{ia} p_a - 2\Bigr)^2
    \quad\text{with}\quad \sum_a p_a = 1 ,

the quadratic model of :math:`-\sum_i w_i \ln Z_i`, and a search along the line to its solution.
It sets masses to exactly zero, which is how values die. Two ways of solving it:

- through the k x k matrix :math:`S^T W S`, summed over blocks of rows, by `quadratic_program`;
- from an empty active set (Lawson and Hanson's non-negative least squares), which frees one mass
  at a time, so that of values that do the same only one is kept. It holds all n x k numbers.
"""

from collections import Counter

import numpy as np
from scipy.optimize import nnls

from geco_theory._typing import Array
from geco_theory.free_energy.blahut_arimoto import moments, responsibilities
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import LEAST_MASS, Mixture
from geco_theory.free_energy.parallel import over_rows
from geco_theory.npmle.quadratic_program import nonnegative_minimum

_BLOCK_ROWS = 512
_RIDGE = 1e-10
_SUM_WEIGHT = 100.0  # of the equation that the masses sum to 1
_ENOUGH = 1e-6  # fall of F/T in one step
_SHORTEST = 1e-3  # share of a step that is still tried


def solve_masses(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    work: Counter[str],
    *,
    steps: int = 1,
    from_empty: bool = False,
    workers: int = 1,
) -> Mixture:
    """Newton steps on the masses at fixed values; F never rises.

    Args:
        data: The data.
        mixture: Values and the masses to begin from.
        temperature: T, in standard units.
        work: Counts, added to.
        steps: Steps at most; the last is the one that lowers F/T by less than 1e-6.
        from_empty: Solve each step from an empty active set.
        workers: Threads, where it is not.

    Returns:
        The mixture; values whose mass a step sets to zero are dropped.
    """
    for _ in range(steps):
        if from_empty:
            wanted, before = _from_empty(data, mixture, temperature)
        else:
            wanted, before = _from_gram(data, mixture, temperature, workers)
        work["passes"] += 1
        total = float(wanted.sum())
        if not (np.isfinite(total) and total > 0.0):
            break  # the step could not be solved; what there is stays
        change = wanted / total - mixture.masses
        length = 1.0
        while length > _SHORTEST:
            masses = mixture.masses + length * change
            alive = masses > LEAST_MASS
            trial = Mixture(mixture.values[alive], masses[alive]).normalised()
            state = moments(data, trial, temperature, block_rows=_BLOCK_ROWS, workers=workers)
            work["passes"] += 1
            if state.free_energy <= before:
                break
            length *= 0.4
        else:
            break
        mixture = trial
        if before - state.free_energy < _ENOUGH * temperature:
            break
    return mixture


def _from_gram(
    data: StandardData, mixture: Mixture, temperature: float, workers: int
) -> tuple[Array, float]:
    """The masses that solve the step, and F; only k x k numbers and blocks of rows are held."""
    k = mixture.size

    def stretch(first: int, last: int) -> tuple[Array, Array, float]:
        gram, mass, free_energy = np.zeros((k, k)), np.zeros(k), 0.0
        for begin in range(first, last, _BLOCK_ROWS):
            block = slice(begin, min(begin + _BLOCK_ROWS, last))
            q, log_z = responsibilities(data.rows[block], mixture, temperature)
            weights = data.weights[block]
            mass += weights @ q
            free_energy -= temperature * float(weights @ log_z)
            q *= np.sqrt(weights)[:, None]
            gram += q.T @ q
        return gram, mass, free_energy

    parts = over_rows(stretch, len(data.rows), workers)
    gram = np.sum([part[0] for part in parts], axis=0)
    mass = np.sum([part[1] for part in parts], axis=0)
    gram /= mixture.masses * mixture.masses[:, None]
    # the constraint on the sum enters with its multiplier, which is 1 at the optimum
    gram[np.diag_indices(k)] *= 1.0 + _RIDGE
    wanted = nonnegative_minimum(gram, 2.0 * mass / mixture.masses - 1.0)
    return wanted, sum(part[2] for part in parts)


def _from_empty(data: StandardData, mixture: Mixture, temperature: float) -> tuple[Array, float]:
    """The same from an empty active set; all zero where that gives up."""
    q, log_z = responsibilities(data.rows, mixture, temperature)
    root = np.sqrt(data.weights)
    design = np.concatenate(
        [root[:, None] * (q / mixture.masses), np.full((1, mixture.size), _SUM_WEIGHT)]
    )
    free_energy = -temperature * float(data.weights @ log_z)
    try:
        wanted = np.asarray(nnls(design, np.concatenate([2 * root, [_SUM_WEIGHT]]))[0])
    except RuntimeError:  # it gave up on its iterations
        wanted = np.zeros(mixture.size)
    return wanted, free_energy
