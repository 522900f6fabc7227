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

from geco_theory.free_energy.blahut_arimoto import (
    Moments,
    accelerate,
    excess,
    moments,
    single_is_enough,
)
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture, merge_coincident
from geco_theory.free_energy.solution import Solution
from geco_theory.npmle.certificate import births
from geco_theory.npmle.joint_newton_cg import descend
from geco_theory.npmle.mean_shift import distinct
from geco_theory.npmle.search import MUCH, Search
from geco_theory.npmle.support import give_birth
from geco_theory.npmle.weights import solve_masses

_APART = 0.3  # in sqrt(T), between new values
_LEFT = 0.2  # of the tolerance: gain that the last climbs may leave
_MOST_BIRTHS = 256  # in one round; each costs one number per data point
_ROUNDS = 60
_CYCLES = 1  # of plain steps in a round
_STEPS = 8  # of Newton in a round
_FEW_STEPS = 6  # while much is missing
_STILL = 0.2  # times the root of the tolerance: least plain step, in sqrt(T), of values that move
_STILLER = 0.7  # by this factor less in every round while little is missing
_IDLE_ROUNDS = 3  # rounds without progress before the whole search
_LOOKS = 6  # whole searches before it is given up
_BESIDE = 0.1  # in sqrt(T), at most: values this near to each other are one
_NEARLY = 10.0  # tolerances that the values may be off where the whole search begins


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
        data = data.in_order  # near rows side by side, so that far values can be left out
        self.data = data
        self.temperature = temperature
        self.tolerance = tolerance
        self.memory = memory
        self.workers = workers
        self.reach = float(np.sqrt(temperature))
        self.single = single_is_enough(data, temperature, tolerance)
        self.work: Counter[str] = Counter()
        self.search = Search(data, temperature, self.single, self.work, workers)

    def solve(self, start: Mixture) -> Solution:
        """Rounds until no ascent finds more than the tolerance."""
        mixture, tolerance = start.normalised(), self.tolerance
        aim = (1.0 - _LEFT) * tolerance
        beside = min(_BESIDE, tolerance**0.25)
        lowest, best, found, idle, looked = np.inf, np.inf, np.inf, 0, 0
        still = _STILL * np.sqrt(tolerance)
        for attempt in range(_ROUNDS):
            self.work["rounds"] += 1
            mixture = self._accelerate(mixture)
            mixture = descend(
                self.data,
                mixture,
                self.temperature,
                _FEW_STEPS if found > MUCH else _STEPS,
                self.work,
                still=still,
                memory=self.memory,
                workers=self.workers,
                single=self.single,
                enough=0.3 * tolerance,
            )
            mixture = merge_coincident(mixture, beside * self.reach)
            if mixture.size > 1:
                mixture = solve_masses(
                    self.data, mixture, self.temperature, self.work, workers=self.workers
                )
            state = self._state(mixture)
            rough = max(0.1 * tolerance, 0.03 * min(best, 1.0))
            maxima = self.search.some(state, mixture, rough)
            found = maxima.log_supremum
            unsolved = excess(mixture, state, self.temperature)
            # the bound T ln S is loose, so either may show progress: F or ln S
            progress = max(found, unsolved) < 0.7 * best or state.free_energy < lowest
            idle = 0 if progress else idle + 1
            best = min(best, max(found, unsolved))
            lowest = min(lowest, state.free_energy - 0.1 * tolerance * self.temperature)
            last = attempt == _ROUNDS - 1 or (idle >= _IDLE_ROUNDS and looked >= _LOOKS)
            solved = found <= aim and unsolved <= _NEARLY * tolerance
            if last or solved or idle >= _IDLE_ROUNDS or (found < MUCH and not looked):
                looked += 1
                maxima = self.search.whole(state, mixture, _LEFT * tolerance)
                if last or maxima.log_supremum <= aim:
                    break
                found = maxima.log_supremum
                best, idle = max(found, unsolved), 0
            still *= 1.0 if found > MUCH else _STILLER
            for apart in (_APART, beside):
                new = births(maxima, mixture, self.temperature, 0.3 * tolerance, apart)
                if len(new):
                    break
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
            sampled=self.search.sampled,
        )

    def _state(self, mixture: Mixture) -> Moments:
        return moments(self.data, mixture, self.temperature, workers=self.workers)

    def _accelerate(self, mixture: Mixture) -> Mixture:
        return accelerate(
            self.data,
            mixture,
            self.temperature,
            0.3 * self.tolerance,
            _CYCLES,
            self.work,
            single=self.single,
            workers=self.workers,
        )
