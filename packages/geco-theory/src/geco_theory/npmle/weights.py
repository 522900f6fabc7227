r"""The masses alone, at fixed values: a convex problem, by the constrained Newton method.

Wang (2007), "On fast computation of the non-parametric maximum likelihood estimate of a mixing
distribution": each step is a quadratic problem in the new masses under non-negativity.
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
_STEPS = 6
_SUM_WEIGHT = 100.0  # of the equation that the masses sum to 1
_ENOUGH = 1e-6  # fall of F/T in one step


def solve_masses(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    work: Counter[str],
    workers: int = 1,
) -> Mixture:
    r"""One Newton step on the masses at fixed values; F never rises.

    The Hessian :math:`\sum_i w_i q_{ia} q_{ib} / (\pi_a \pi_b)` is summed over blocks of rows, so
    only k x k numbers are held. Masses that the step sets to zero are dropped.
    """
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
    free_energy = sum(part[2] for part in parts)
    work["passes"] += 1
    gram /= mixture.masses * mixture.masses[:, None]
    # f = -sum w ln Z + sum pi near pi: p.G.p/2 - (2 m/pi - 1).p up to a constant
    gram[np.diag_indices(k)] *= 1.0 + _RIDGE
    wanted = nonnegative_minimum(gram, 2.0 * mass / mixture.masses - 1.0)
    change = wanted - mixture.masses
    length = 1.0
    while length > 0.01 and np.all(np.isfinite(change)):
        masses = mixture.masses + length * change
        alive = masses > LEAST_MASS
        if alive.any():
            trial = Mixture(mixture.values[alive], masses[alive]).normalised()
            work["passes"] += 1
            state = moments(data, trial, temperature, block_rows=_BLOCK_ROWS, workers=workers)
            if state.free_energy <= free_energy:
                return trial
        length *= 0.3
    return mixture


def solve_masses_from_empty(
    data: StandardData, mixture: Mixture, temperature: float, work: Counter[str]
) -> Mixture:
    """The best masses at fixed values; values without mass are dropped."""
    root = np.sqrt(data.weights)
    target = np.concatenate([2 * root, [_SUM_WEIGHT]])
    for _ in range(_STEPS):
        q, log_z = responsibilities(data.rows, mixture, temperature)
        here = float(data.weights @ log_z)
        design = np.concatenate(
            [root[:, None] * (q / mixture.masses), np.full((1, mixture.size), _SUM_WEIGHT)]
        )
        try:
            wanted: Array = nnls(design, target)[0]
        except RuntimeError:  # it gave up on its iterations; what there is stays
            break
        if not wanted.any():
            break
        change = wanted / wanted.sum() - mixture.masses
        length = 1.0
        while length > 1e-6:
            masses = mixture.masses + length * change
            alive = masses > 1e-14
            trial = mixture.select(alive)
            trial = Mixture(trial.values, masses[alive]).normalised()
            rise = float(data.weights @ moments(data, trial, temperature).log_z) - here
            work["passes"] += 1
            if rise >= 0:
                break
            length *= 0.4
        else:
            break
        mixture = trial
        if rise < _ENOUGH:
            break
    return mixture
