r"""Steps that hold no matrix larger than one block of rows by the number of values.

The plain step (Blahut-Arimoto with free support), extrapolated in squares (in the values and the
logarithms of the masses) and guarded by F, and a Newton step on the masses alone.
"""

from collections import Counter

import numpy as np

from geco_theory.kernels import Moments, moments, responsibilities
from geco_theory.mixtures import Mixture
from geco_theory.nonnegative import nonnegative_minimum
from geco_theory.standard_data import Array, StandardData
from geco_theory.workers import over_rows

_LEAST_MASS = 1e-10
_RIDGE = 1e-10
_BLOCK_ROWS = 512


def accelerate(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    enough: float,
    max_cycles: int,
    work: Counter[str],
    *,
    single: bool = False,
    workers: int = 1,
) -> Mixture:
    """Squared steps until ln D at the values is below `enough`, or F hardly falls; F never rises.

    Args:
        data: The data.
        mixture: Where to begin.
        temperature: T, in standard units.
        enough: ln D at the values, and where the next step takes them, that is small enough.
        max_cycles: Cycles at most.
        work: Counts, added to.
        single: Pairs in single precision; F then never rises by more than its rounding.
        workers: Threads.
    """

    def at(trial: Mixture) -> Moments:
        work["passes"] += 1
        return moments(
            data, trial, temperature, block_rows=_BLOCK_ROWS, single=single, workers=workers
        )

    state = at(mixture)
    for cycle in range(max_cycles):
        first = _next(state)
        middle = at(first)
        second = _next(middle)
        trial = _extrapolate(mixture, first, second, 2.0 ** (cycle + 2))
        ahead = at(trial)
        if ahead.free_energy > middle.free_energy:
            trial, ahead = second, at(second)
        fall = (state.free_energy - ahead.free_energy) / temperature
        mixture, state = trial, ahead
        if fall < 1e-3 * enough or _excess(mixture, state, temperature) < enough:
            break
        light = mixture.masses < _LEAST_MASS
        if light.any():
            mixture = mixture.select(~light).normalised()
            state = at(mixture)
    return mixture


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
        alive = masses > _LEAST_MASS
        if alive.any():
            trial = Mixture(mixture.values[alive], masses[alive]).normalised()
            work["passes"] += 1
            state = moments(data, trial, temperature, block_rows=_BLOCK_ROWS, workers=workers)
            if state.free_energy <= free_energy:
                return trial
        length *= 0.3
    return mixture


def _excess(mixture: Mixture, state: Moments, temperature: float) -> float:
    """Estimate of ln D where the values go: at them, and what their next steps would gain."""
    gaps = state.means - mixture.values
    with np.errstate(divide="ignore"):
        here = np.log(state.mass / mixture.masses)
    return float((here + np.einsum("ij,ij->i", gaps, gaps) / temperature).max())


def _next(state: Moments) -> Mixture:
    """The plain step: Eq. (4) and the masses that the data give."""
    return Mixture(state.means, np.maximum(state.mass, 1e-300)).normalised()


def _extrapolate(start: Mixture, first: Mixture, second: Mixture, most: float) -> Mixture:
    """The squared extrapolation of three iterates, in the values and the log masses."""
    weight = np.sqrt(start.masses)[:, None]

    def stack(mixture: Mixture) -> Array:
        return np.concatenate([mixture.values, np.log(mixture.masses)[:, None]], axis=1)

    one = stack(first) - stack(start)
    change = stack(second) - stack(first) - one
    length = float(np.linalg.norm(weight * one))
    bend = float(np.linalg.norm(weight * change))
    stretch = min(max(length / max(bend, 1e-300), 1.0), most)
    ahead = stack(start) + 2 * stretch * one + stretch**2 * change
    masses = np.exp(np.clip(ahead[:, -1], -600, 0.0))
    return Mixture(np.ascontiguousarray(ahead[:, :-1]), masses).normalised()
