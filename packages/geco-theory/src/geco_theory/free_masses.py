"""The global optimum at one temperature: free masses, with its certificate [D9]."""

import numpy as np

from geco_theory import certificate as cert
from geco_theory.kernels import Moments, moments, responsibilities
from geco_theory.mixtures import Mixture, merge_coincident
from geco_theory.second_order import newton_direction
from geco_theory.solutions import Solution
from geco_theory.standard_data import StandardData

_MERGE = 3e-3
_BIRTH_MASS = 1e-3
_LEAST_MASS = 1e-10


def solve_free(
    data: StandardData,
    temperature: float,
    start: Mixture,
    *,
    tolerance: float = 1e-9,
    max_rounds: int = 40,
) -> Solution:
    """Minimise the free energy over all distributions of decoder values.

    Args:
        data: The data.
        temperature: T, in standard units.
        start: Any mixture to begin from; the answer does not depend on it.
        tolerance: The certificate ln S that must be reached.
        max_rounds: Rounds of Newton steps and births before giving up.
    """
    work = {"rounds": 0, "newton": 0, "passes": 0}
    mixture = start.normalised()
    log_s = np.inf
    for _ in range(max_rounds):
        work["rounds"] += 1
        mixture = _relax(data, mixture, temperature, 2 if work["rounds"] == 1 else 1, work)
        mixture = merge_coincident(mixture, _MERGE * np.sqrt(temperature))
        mixture = _polish(data, mixture, temperature, work)
        state = moments(data, mixture, temperature)
        maxima = cert.certify(data, state.log_z, temperature, mixture)
        log_s = maxima.log_supremum
        if log_s <= tolerance:
            break
        new = cert.births(maxima, mixture, temperature, 0.3 * tolerance)
        if len(new):
            mixture = mixture.with_values(new, _BIRTH_MASS)
    state = moments(data, mixture, temperature)
    rate = (state.free_energy - state.distortion / 2) / temperature
    return Solution(
        temperature,
        mixture.sorted_by_mass(),
        state.free_energy,
        state.distortion,
        max(rate, 0.0),
        log_s,
        log_s <= tolerance,
        work,
    )


def _relax(
    data: StandardData, mixture: Mixture, temperature: float, steps: int, work: dict[str, int]
) -> Mixture:
    """Plain steps of Eqs. (3) and (4) with the masses following (Blahut-Arimoto)."""
    for _ in range(steps):
        state: Moments = moments(data, mixture, temperature)
        work["passes"] += 1
        mixture = Mixture(state.means, state.mass)
        mixture = mixture.select(mixture.masses > _LEAST_MASS).normalised()
    return mixture


def _objective(state: Moments, mixture: Mixture, temperature: float) -> float:
    return state.free_energy / temperature + float(mixture.masses.sum())


def _polish(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    work: dict[str, int],
    max_steps: int = 30,
) -> Mixture:
    """Newton steps until the predicted fall of f is nothing; every step lowers f."""
    for _ in range(max_steps):
        q, log_z = responsibilities(data.rows, mixture, temperature)
        here = float(-data.weights @ log_z + mixture.masses.sum())
        step = newton_direction(data, mixture, temperature, q)
        work["newton"] += 1
        if step.slope > -1e-14:
            break
        length = 1.0
        while length > 1e-3:
            masses = mixture.masses + length * step.masses
            alive = masses > _LEAST_MASS
            trial = Mixture((mixture.values + length * step.values)[alive], masses[alive])
            state = moments(data, trial, temperature)
            work["passes"] += 1
            if _objective(state, trial, temperature) <= here + 1e-4 * length * step.slope + 1e-15:
                break
            length *= 0.4
        else:
            mixture = _relax(data, mixture, temperature, 3, work)
            continue
        mixture = merge_coincident(trial.normalised(), _MERGE * np.sqrt(temperature))
    return mixture
