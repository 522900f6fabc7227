r"""Free masses where the data are too many for a factored Newton step.

Rounds of: Newton steps on the masses, plain steps with extrapolation (`plain`), ascent for the
certificate from a sample of the data, births. Nothing larger than one block of rows by the number
of values is held.

With the ascents begun at a sample, the largest ln D found is a lower estimate of ln S: a maximum
whose basin holds no sampled point, value or earlier maximum is missed. `converged` then means
that no ascent found more than the tolerance, not that there is no more.
"""

from collections import Counter

import numpy as np

from geco_theory.certificate import ascend, births
from geco_theory.kernels import moments
from geco_theory.mixtures import Mixture, merge_coincident
from geco_theory.plain import accelerate, solve_masses
from geco_theory.solutions import Solution
from geco_theory.standard_data import StandardData
from geco_theory.support import give_birth

_SAMPLE = 1024  # data points that ascents start from
_MOST_BIRTHS = 256  # in one round; each costs one number per data point
_ROUNDS = 40
_CYCLES = 12
_IDLE_ROUNDS = 3  # rounds without progress before it is given up
_MERGE = (0.1, 0.03, 0.01)  # in sqrt(T), by round


def solve_lean(
    data: StandardData, temperature: float, start: Mixture, tolerance: float
) -> Solution:
    """Minimise the free energy without matrices of n x n or n x k numbers.

    Args:
        data: The data.
        temperature: T, in standard units.
        start: Any mixture to begin from.
        tolerance: The certificate ln S to reach.
    """
    work: Counter[str] = Counter()
    mixture = start.normalised()
    reach = np.sqrt(temperature)
    number = min(_SAMPLE, len(data.rows))
    chosen = np.random.default_rng(0).choice(len(data.rows), number, replace=False)
    sample = starts = data.rows[np.sort(chosen)]
    lowest, best, idle = np.inf, np.inf, 0
    for attempt in range(_ROUNDS):
        work["rounds"] += 1
        enough = 0.1 * tolerance if attempt else tolerance
        mixture = accelerate(data, mixture, temperature, enough, _CYCLES, work)
        mixture = merge_coincident(mixture, _MERGE[min(attempt, len(_MERGE) - 1)] * reach)
        if mixture.size > 1:
            mixture = solve_masses(data, mixture, temperature, work)
        state = moments(data, mixture, temperature)
        maxima = ascend(
            data,
            state.log_z,
            temperature,
            starts,
            known=mixture.values,
            accuracy=0.1 * tolerance,
            climb_known=True,
        )
        if maxima.log_supremum <= tolerance:
            break
        # the bound T ln S is loose, so either may show progress: F or ln S
        idle = 0 if maxima.log_supremum < 0.7 * best or state.free_energy < lowest else idle + 1
        best = min(best, maxima.log_supremum)
        lowest = state.free_energy - 0.1 * tolerance * temperature
        if idle >= _IDLE_ROUNDS or attempt == _ROUNDS - 1:
            break
        new = births(maxima, mixture, temperature, 0.3 * tolerance)[:_MOST_BIRTHS]
        starts = np.concatenate([sample, maxima.points])
        if len(new):
            mixture = give_birth(data, state.log_z, temperature, mixture, new)
            work["births"] += len(new)
    return Solution.of(
        temperature,
        mixture,
        state,
        maxima.log_supremum,
        tolerance,
        dict(work),
        sampled=number < len(data.rows),
    )
