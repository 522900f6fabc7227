r"""Free masses where the data are too many for a factored Newton step.

Rounds of: Newton steps on the masses, plain steps with extrapolation (`plain`), ascent for the
certificate from a sample of the data, births. Nothing larger than one block of rows by the number
of values is held.

With the ascents begun at a sample, the largest ln D found is a lower estimate of ln S: a maximum
whose basin holds no sampled point, value or earlier maximum is missed. `converged` then means
that no ascent found more than the tolerance, not that there is no more.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from geco_theory.certificate import Maxima, ascend, births
from geco_theory.kernels import Moments, moments
from geco_theory.mixtures import Mixture, merge_coincident
from geco_theory.plain import accelerate, solve_masses
from geco_theory.solutions import Solution
from geco_theory.standard_data import Array, StandardData
from geco_theory.support import give_birth

_SAMPLE = 1024  # data points that ascents start from
_FIRST = 256  # those that they start from while more is found from them
_PART = 4096  # data points whose landscape is climbed first
_ROUGH = 1e-3  # gain in ln D that such a climb may leave
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
    sample = data.rows[chosen]
    starts = sample[:_FIRST]
    lowest, best, idle = np.inf, np.inf, 0
    for attempt in range(_ROUNDS):
        work["rounds"] += 1
        mixture = accelerate(data, mixture, temperature, 0.1 * tolerance, _CYCLES, work)
        mixture = merge_coincident(mixture, _MERGE[min(attempt, len(_MERGE) - 1)] * reach)
        if mixture.size > 1:
            mixture = solve_masses(data, mixture, temperature, work)
        state = moments(data, mixture, temperature)
        accuracy = max(0.1 * tolerance, 0.03 * min(best, 1.0))
        maxima = _certify(data, state, temperature, mixture, starts, accuracy, last=False)
        # the bound T ln S is loose, so either may show progress: F or ln S
        idle = 0 if maxima.log_supremum < 0.7 * best or state.free_energy < lowest else idle + 1
        best = min(best, maxima.log_supremum)
        lowest = state.free_energy - 0.1 * tolerance * temperature
        last = idle >= _IDLE_ROUNDS or attempt == _ROUNDS - 1
        if last or maxima.log_supremum <= tolerance:  # the whole search only now
            maxima = _certify(
                data, state, temperature, mixture, sample, 0.1 * tolerance, last=True
            )
            if last or maxima.log_supremum <= tolerance:
                break
            best, idle = maxima.log_supremum, 0
        new = births(maxima, mixture, temperature, 0.3 * tolerance)[:_MOST_BIRTHS]
        starts = np.concatenate([sample[:_FIRST], maxima.points[:_FIRST]])
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


def _certify(
    data: StandardData,
    state: Moments,
    temperature: float,
    mixture: Mixture,
    starts: Array,
    accuracy: float,
    *,
    last: bool,
) -> Maxima:
    """Ascend from `starts`, and at last from the values too, which may not be at maxima yet.

    The long way up is climbed on the landscape of a part of the data, which has nearly the same
    maxima; what is reported comes from all of them.
    """
    if len(data.rows) > 2 * _PART:
        chosen = np.random.default_rng(1).choice(len(data.rows), _PART, replace=False)
        weights = data.weights[chosen] / data.weights[chosen].sum()
        part = replace(data, rows=data.rows[chosen], weights=weights)
        starts = ascend(
            part, state.log_z[chosen], temperature, starts, accuracy=_ROUGH, refine=False
        ).points
    return ascend(
        data,
        state.log_z,
        temperature,
        starts,
        known=mixture.values,
        accuracy=accuracy,
        climb_known=last,
        refine=last,
    )
