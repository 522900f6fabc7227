r"""Free masses where the data are too many for a factored Newton step.

Rounds of: Newton steps on the masses, plain steps with extrapolation (`plain`), ascent for the
certificate from a sample of the data, births. Nothing larger than one block of rows by the number
of values is held. Where the tolerance allows, pairs are taken in single precision, sums in double;
F, RE, KL and every height that is reported come from a pass in double precision.

With the ascents begun at a sample, the largest ln D found is a lower estimate of ln S: a maximum
whose basin holds no sampled point, value or earlier maximum is missed. `converged` then means
that no ascent found more than the tolerance, not that there is no more.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from geco_theory.certificate import Landscape, Maxima, ascend, births, captured
from geco_theory.kernels import Moments, moments, single_is_enough
from geco_theory.mixtures import Mixture, merge_coincident
from geco_theory.plain import accelerate, solve_masses
from geco_theory.solutions import Solution
from geco_theory.standard_data import Array, StandardData
from geco_theory.support import give_birth

_SAMPLE = 1024  # data points that ascents start from
_PART = 4096  # data points whose landscape is climbed first
_ROUGH = 1e-3  # gain in ln D that such a climb may leave
_FEW = 96  # highest points from which climbs go on over all data while births are looked for
_CAPTURE = 0.05  # in sqrt(T): a climb this near to a value has arrived; values climb at last
_MOST_BIRTHS = 256  # in one round; each costs one number per data point
_ROUNDS = 60
_CYCLES = 40
_FEW_CYCLES = 4  # while much is missing
_MUCH = 0.01  # of ln S
_IDLE_ROUNDS = 3  # rounds without progress before it is given up
_MERGE = (0.1, 0.03, 0.01)  # in sqrt(T), by round
_TIDY = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)  # in sqrt(T), tried in this order


def solve_lean(
    data: StandardData, temperature: float, start: Mixture, tolerance: float, workers: int = 1
) -> Solution:
    """Minimise the free energy without matrices of n x n or n x k numbers.

    Args:
        data: The data.
        temperature: T, in standard units.
        start: Any mixture to begin from.
        tolerance: The certificate ln S to reach.
        workers: Threads.
    """
    # many blocks: BLAS threads that wait for each other in every one of them cost far more
    with threadpool_limits(1, user_api="blas"):
        return _Lean(data, temperature, tolerance, workers).solve(start)


class _Lean:
    """One temperature."""

    def __init__(
        self, data: StandardData, temperature: float, tolerance: float, workers: int
    ) -> None:
        self.data = data
        self.temperature = temperature
        self.tolerance = tolerance
        self.workers = workers
        self.reach = float(np.sqrt(temperature))
        self.single = single_is_enough(data, temperature, tolerance)
        self.work: Counter[str] = Counter()
        number = min(_SAMPLE, len(data.rows))
        chosen = np.random.default_rng(0).choice(len(data.rows), number, replace=False)
        self.sample = data.rows[chosen]

    def solve(self, start: Mixture) -> Solution:
        """Rounds until no ascent finds more than the tolerance."""
        mixture, tolerance = start.normalised(), self.tolerance
        climbs = self.sample  # the climbs of a round begin where those of the last one ended
        lowest, best, found, idle, tidied = np.inf, np.inf, np.inf, 0, False
        for attempt in range(_ROUNDS):
            self.work["rounds"] += 1
            mixture = self._accelerate(mixture, _FEW_CYCLES if found > _MUCH else _CYCLES)
            mixture = merge_coincident(mixture, _MERGE[min(attempt, len(_MERGE) - 1)] * self.reach)
            if mixture.size > 1:
                mixture = solve_masses(
                    self.data, mixture, self.temperature, self.work, self.workers
                )
            state = self._state(mixture)
            rough = max(0.1 * tolerance, 0.03 * min(best, 1.0))
            maxima, climbs = self._certify(state, mixture, climbs, rough)
            if maxima.log_supremum <= tolerance:  # from the data again, where D is high
                maxima, climbs = self._certify(state, mixture, self.sample, 0.3 * tolerance)
            # the bound T ln S is loose, so either may show progress: F or ln S
            progress = maxima.log_supremum < 0.7 * best or state.free_energy < lowest
            idle = 0 if progress else idle + 1
            best = min(best, maxima.log_supremum)
            lowest = state.free_energy - 0.1 * tolerance * self.temperature
            last = idle >= _IDLE_ROUNDS or attempt == _ROUNDS - 1
            if last or maxima.log_supremum <= tolerance:  # the whole search only now
                if not tidied:
                    mixture, tidied = self._tidy(mixture, state.free_energy), True
                    state = self._state(mixture)
                maxima, climbs = self._certify(
                    state, mixture, self.sample, 0.3 * tolerance, whole=True
                )
                if last or maxima.log_supremum <= tolerance:
                    break
                best, idle = maxima.log_supremum, 0
            found = maxima.log_supremum
            new = births(maxima, mixture, self.temperature, 0.3 * tolerance)[:_MOST_BIRTHS]
            if len(new):
                mixture = give_birth(self.data, state.log_z, self.temperature, mixture, new)
                self.work["births"] += len(new)
        return Solution.of(
            self.temperature,
            mixture,
            state,
            maxima.log_supremum,
            tolerance,
            dict(self.work),
            sampled=len(self.sample) < len(self.data.rows),
        )

    def _state(self, mixture: Mixture) -> Moments:
        return moments(self.data, mixture, self.temperature, workers=self.workers)

    def _accelerate(self, mixture: Mixture, cycles: int) -> Mixture:
        return accelerate(
            self.data,
            mixture,
            self.temperature,
            0.3 * self.tolerance,
            cycles,
            self.work,
            single=self.single,
            workers=self.workers,
        )

    def _tidy(self, mixture: Mixture, free_energy: float) -> Mixture:
        """Neighbours made one value where F does not rise: else some would be counted twice."""
        limit = free_energy + 0.01 * self.tolerance * self.temperature
        for radius in _TIDY:
            trial = merge_coincident(mixture, radius * self.reach)
            if trial.size == mixture.size:
                continue
            trial = self._accelerate(trial, _CYCLES)
            if self._state(trial).free_energy <= limit:
                self.work["merged"] += mixture.size - trial.size
                return trial
        return mixture

    def _certify(
        self,
        state: Moments,
        mixture: Mixture,
        starts: Array,
        accuracy: float,
        *,
        whole: bool = False,
    ) -> tuple[Maxima, Array]:
        """Ascend from `starts`, with `whole` from all and from the values too.

        The values may not be at maxima yet. The long way up is climbed on the landscape of a part
        of the data, which has nearly the same maxima; what is reported comes from all of them.

        Returns:
            The maxima, and where the climbs on the part ended.
        """
        data, temperature = self.data, self.temperature
        if len(data.rows) > 2 * _PART:
            chosen = np.random.default_rng(1).choice(len(data.rows), _PART, replace=False)
            weights = data.weights[chosen] / data.weights[chosen].sum()
            part = replace(data, rows=data.rows[chosen], weights=weights)
            starts = ascend(
                part, state.log_z[chosen], temperature, starts, accuracy=_ROUGH, refine=False
            ).points
        ends = starts
        if not whole:
            starts = starts[~captured(starts, mixture.values, _CAPTURE * self.reach)]
            if len(starts) > _FEW:
                bulk = Landscape(data, state.log_z, temperature, np.float32, self.workers)
                starts = starts[np.argsort(-bulk.step(starts)[0])[:_FEW]]
        maxima = ascend(
            data,
            state.log_z,
            temperature,
            starts,
            known=mixture.values,
            accuracy=accuracy,
            capture=_CAPTURE,
            climb_known=whole,
            refine=whole and not self.single,
            workers=self.workers,
        )
        return maxima, ends
