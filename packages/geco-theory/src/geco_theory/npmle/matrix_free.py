r"""Free masses where the data are too many for a factored Newton step.

Rounds of: Newton steps by conjugate gradients (`joint_newton_cg`), a Newton step on the masses
alone, which drops values, ascent for the certificate, births. Of n x k numbers only the posteriors
of one mixture are kept, in single precision and if they fit into the memory. Where the tolerance
allows, pairs are taken in single precision, sums in double; F, RE, KL and every height that is
reported come from a pass in double precision.

The ascents begin at a sample of the data, at those that the solution explains worst, and at the
values. The largest ln D found is then a lower estimate of ln S: a maximum whose basin holds none
of these is missed. `converged` means that no ascent found more than the tolerance, not that there
is no more.
"""

from collections import Counter

import numpy as np
from threadpoolctl import threadpool_limits

from geco_theory.free_energy.blahut_arimoto import Moments, accelerate, moments, single_is_enough
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture, merge_coincident
from geco_theory.free_energy.solution import Solution
from geco_theory.npmle.certificate import Maxima, ascend, births
from geco_theory.npmle.joint_newton_cg import descend
from geco_theory.npmle.mean_shift import Landscape, captured, distinct
from geco_theory.npmle.subsample import stratified_part, uniform_sample, worst_explained
from geco_theory.npmle.support import give_birth
from geco_theory.npmle.weights import solve_masses

_SAMPLE = 1024  # data points at random that ascents start from
_WORST = 4096  # worst explained data points that the whole search starts from
_FEW_WORST = 1024  # those of one round
_PART = 4096  # further data points whose landscape is climbed first
_ROUGH = 1e-3  # gain in ln D that such a climb may leave
_FEW = 96  # highest points from which climbs go on over all data while births are looked for
_APART = 0.3  # in sqrt(T), between new values
_FAR = 0.3  # in sqrt(T): nearer to a value its own climb will do while births are looked for
_CAPTURE = 0.05  # in sqrt(T): a climb this near to a value has arrived; values climb at last
_LEFT = 0.3  # of the tolerance: gain that the last climbs may leave
_MOST_BIRTHS = 256  # in one round; each costs one number per data point
_ROUNDS = 60
_CYCLES = 40  # of plain steps after neighbours were made one
_FEW_CYCLES = 1  # of plain steps in a round
_STEPS = 12  # of Newton in a round
_FEW_STEPS = 6  # while much is missing
_STILL = 0.2  # times the root of the tolerance: least plain step, in sqrt(T), of values that move
_STILLER = 0.7  # by this factor less in every round while little is missing
_MUCH = 0.01  # of ln S
_PLENTY = 32  # points with so much: nothing further is looked for in a round
_IDLE_ROUNDS = 5  # rounds without progress before it is given up
_MERGE = (0.1, 0.03, 0.01)  # in sqrt(T), by round
_TIDY = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)  # in sqrt(T), tried in this order


def solve_matrix_free(
    data: StandardData,
    temperature: float,
    start: Mixture,
    tolerance: float,
    memory: float = 1024.0,
    workers: int = 1,
) -> Solution:
    """Minimise the free energy without matrices of n x n numbers.

    Args:
        data: The data.
        temperature: T, in standard units.
        start: Any mixture to begin from.
        tolerance: The certificate ln S to reach.
        memory: MiB of posteriors to keep; where they are more they are computed again.
        workers: Threads.
    """
    # many blocks: BLAS threads that wait for each other in every one of them cost far more
    with threadpool_limits(1, user_api="blas"):
        return _Lean(data, temperature, tolerance, memory, workers).solve(start)


class _Lean:
    """One temperature."""

    def __init__(
        self,
        data: StandardData,
        temperature: float,
        tolerance: float,
        memory: float,
        workers: int,
    ) -> None:
        self.data = data
        self.temperature = temperature
        self.tolerance = tolerance
        self.memory = memory
        self.workers = workers
        self.reach = float(np.sqrt(temperature))
        self.single = single_is_enough(data, temperature, tolerance)
        self.work: Counter[str] = Counter()
        self.sample = data.rows[uniform_sample(data, _SAMPLE)]
        self.climbs = self.sample  # those of a round begin where those of the last one ended

    def solve(self, start: Mixture) -> Solution:
        """Rounds until no ascent finds more than the tolerance."""
        mixture, tolerance = start.normalised(), self.tolerance
        aim = (1.0 - _LEFT) * tolerance
        lowest, best, found, idle, tidied = np.inf, np.inf, np.inf, 0, False
        still = _STILL * np.sqrt(tolerance)
        for attempt in range(_ROUNDS):
            self.work["rounds"] += 1
            mixture = self._accelerate(mixture, _FEW_CYCLES)
            mixture = descend(
                self.data,
                mixture,
                self.temperature,
                _FEW_STEPS if found > _MUCH else _STEPS,
                self.work,
                still=still,
                memory=self.memory,
                workers=self.workers,
            )
            mixture = merge_coincident(mixture, _MERGE[min(attempt, len(_MERGE) - 1)] * self.reach)
            if mixture.size > 1:
                mixture = solve_masses(
                    self.data, mixture, self.temperature, self.work, workers=self.workers
                )
            state = self._state(mixture)
            rough = max(0.1 * tolerance, 0.03 * min(best, 1.0))
            maxima = self._search(state, mixture, rough)
            # the bound T ln S is loose, so either may show progress: F or ln S
            progress = maxima.log_supremum < 0.7 * best or state.free_energy < lowest
            idle = 0 if progress else idle + 1
            best = min(best, maxima.log_supremum)
            lowest = state.free_energy - 0.1 * tolerance * self.temperature
            last = idle >= _IDLE_ROUNDS or attempt == _ROUNDS - 1
            if last or maxima.log_supremum <= aim:  # the whole search only now
                if not tidied:
                    mixture, tidied = self._tidy(mixture, state.free_energy), True
                    state = self._state(mixture)
                maxima = self._search(state, mixture, _LEFT * tolerance, whole=True)
                if last or maxima.log_supremum <= aim:
                    break
                best, idle = maxima.log_supremum, 0
            found = maxima.log_supremum
            still *= 1.0 if found > _MUCH else _STILLER
            new = births(maxima, mixture, self.temperature, 0.3 * tolerance)
            falling = -np.arange(len(new), dtype=float)  # highest first already
            new = new[distinct(new, falling, _APART * self.reach)][:_MOST_BIRTHS]
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

    def _search(
        self, state: Moments, mixture: Mixture, accuracy: float, *, whole: bool = False
    ) -> Maxima:
        """Where D is high: from the ends of the last climbs, the worst explained data, the values.

        The long way up is climbed on the landscape of a part of the data, which has nearly the
        same maxima; what is reported comes from all of them. While much is missing, points near
        maxima will do.

        Args:
            state: One pass over the data at `mixture`.
            mixture: Decoder values, perhaps not at maxima yet.
            accuracy: Gain in ln D that a climb may leave.
            whole: From the whole sample again, and from many more of the worst explained.
        """
        data, temperature, near = self.data, self.temperature, _CAPTURE * self.reach
        worst = data.rows[worst_explained(data, state.log_z, _WORST if whole else _FEW_WORST)]
        worst = worst[~captured(worst, mixture.values, near)]
        parts = [self.sample, worst, data.group_means] if whole else [self.climbs, worst]
        starts = np.concatenate(parts)
        if len(data.rows) > 2 * (_PART + _WORST):
            part, log_z = stratified_part(data, state.log_z, _WORST, _PART)
            starts = ascend(
                part,
                log_z,
                temperature,
                starts,
                accuracy=_ROUGH,
                refine=False,
                workers=self.workers,
            ).points
        self.climbs = starts
        starts = starts[~captured(starts, mixture.values, near if whole else _FAR * self.reach)]
        bulk = Landscape(data, state.log_z, temperature, np.float32, self.workers)
        if len(starts):
            log_d, ahead = bulk.step(starts)
            if np.count_nonzero(log_d > _MUCH) > _PLENTY and not whole:
                self.work["quick"] += 1
                order = np.argsort(-log_d)
                return Maxima(ahead[order], log_d[order])
            starts = ahead if whole else ahead[np.argsort(-log_d)[:_FEW]]
        self.work["searches"] += 1
        return ascend(
            data,
            state.log_z,
            temperature,
            starts,
            known=mixture.values,
            accuracy=accuracy,
            capture=_CAPTURE,
            climb_known=True,
            refine=whole and not self.single,
            workers=self.workers,
        )
