r"""Values that enter the support, and values that leave it where there are far too many.

In few dimensions, or at temperatures far above the spacing of the values, the likelihoods of
neighbouring values are nearly the same vector, and a Newton step on all of them has no accurate
direction. The masses alone are then solved for at fixed values (`weights`, from an empty set).
"""

from collections import Counter

import numpy as np

from geco_theory._typing import Array
from geco_theory.free_energy.blahut_arimoto import log_joint, moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture, merge_coincident
from geco_theory.npmle.weights import solve_masses

_LEAST_BIRTH = 1e-8
_MOST_BIRTH = 0.5  # of all mass, for all new values
_SHARINGS = 3
_STEPS = 6  # of Newton on the masses
_MERGE = (1.0, 0.5, 0.25, 0.1)  # in sqrt(T), tried in this order


def give_birth(
    data: StandardData, log_z: Array, temperature: float, mixture: Mixture, new: Array
) -> Mixture:
    r"""Add values with about the masses that they will take, the present values staying.

    Alone, the best mass m solves :math:`\sum_i w_i (R_i - 1) / (1 + m (R_i - 1)) = 0`, R the
    likelihood of the new value over Z. The sum falls in m, so the root is found by halving, from
    below: a new value that began with more mass than it can bear would die in the next step. Where
    new values want the same data they share: a few steps of Eq. (3) with all of them.
    """
    one = Mixture(new, np.ones(len(new)))
    excess = np.expm1(np.minimum(log_joint(data.rows, one, temperature) - log_z[:, None], 600.0))
    low = np.full(len(new), np.log(_LEAST_BIRTH))
    high = np.full(len(new), np.log(0.5))
    for _ in range(10):
        middle = 0.5 * (low + high)
        more = data.weights @ (excess / (1.0 + np.exp(middle) * excess)) > 0
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    mass = np.exp(low)
    mass *= min(1.0, _MOST_BIRTH / float(mass.sum()))
    for _ in range(_SHARINGS):  # where they want the same data they share
        mass = mass * (data.weights @ ((1.0 + excess) / (1.0 + excess @ mass)[:, None]))
        mass *= min(1.0, _MOST_BIRTH / float(mass.sum()))
    return Mixture(
        np.concatenate([mixture.values, new]),
        np.concatenate([mixture.masses * (1.0 - mass.sum()), mass]),
    )


def reduce_support(
    data: StandardData, mixture: Mixture, temperature: float, work: Counter[str]
) -> Mixture:
    """Solve for the masses, drop values that end with none, merge those left side by side.

    Args:
        data: The data.
        mixture: Any mixture.
        temperature: T, in standard units.
        work: Counts, added to.

    Returns:
        A mixture of no larger free energy; `mixture` itself if none was found.
    """
    work["reductions"] += 1
    before = moments(data, mixture, temperature).free_energy
    solved = solve_masses(data, mixture, temperature, work, steps=_STEPS, from_empty=True)
    for radius in _MERGE:
        trial = merge_coincident(solved, radius * np.sqrt(temperature))
        if trial.size == solved.size:
            continue
        for _ in range(2):
            state = moments(data, trial, temperature)
            work["passes"] += 1
            trial = state.next()
        if moments(data, trial, temperature).free_energy <= before:
            return trial
    return solved
