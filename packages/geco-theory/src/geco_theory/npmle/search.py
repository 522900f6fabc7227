"""Where D is high, looked for from part of the data: births, and the certificate of many data.

Climbs begin at the ends of the last ones, at a sample, at the worst explained data and, at last,
at the values. The long way up leads over the landscape of a part of the data, which has nearly the
same maxima; what is reported comes from all of them.
"""

from collections import Counter

import numpy as np

from geco_theory._typing import Array
from geco_theory.free_energy.blahut_arimoto import Moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.certificate import Maxima, ascend
from geco_theory.npmle.mean_shift import Landscape, captured
from geco_theory.npmle.subsample import stratified_part, uniform_sample, worst_explained

__all__ = ["Search"]

_SAMPLE = 1024  # data points at random that ascents start from
_WORST = 4096  # worst explained data points that the whole search starts from
_FEW_WORST = 512  # those of one round
_PART = 4096  # further data points whose landscape is climbed first
_ROUGH = 1e-3  # gain in ln D that such a climb may leave
_FEW_CYCLES = 6  # extrapolated steps of such a climb in one round
_MANY_CYCLES = 40
_FEW = 96  # highest points from which climbs go on over all data while births are looked for
_NEAR = 0.1  # in sqrt(T): a climb this near to a value has arrived; values climb at last
_FAR = 0.3  # the same before the first whole search: values will move
_HOPELESS = 0.1  # below -this in ln D, what it still gains included, a climb is left
_ON_PART = 1.0  # the same on the landscape of a part
_GAINS = 20.0  # first gains that a climb is given to get there
MUCH = 0.01  # of ln D
_PLENTY = 32  # points with so much: nothing further is looked for in a round


class Search:
    """Searches at one temperature.

    Args:
        data: The data.
        temperature: T, in standard units.
        single: Whether heights in single precision will do.
        work: Counts, added to.
        workers: Threads.
    """

    def __init__(
        self,
        data: StandardData,
        temperature: float,
        single: bool,
        work: Counter[str],
        workers: int = 1,
    ) -> None:
        self.data = data
        self.temperature = temperature
        self.single = single
        self.work = work
        self.workers = workers
        self.reach = float(np.sqrt(temperature))
        self.sample = data.rows[uniform_sample(data, _SAMPLE)]
        self.seen = (np.full(len(data.rows), np.inf), self.sample)  # ln Z, high maxima
        self.sampled = len(self.sample) < len(data.rows)
        # the climbs of a round begin where those of the last one ended
        self.ends = np.concatenate([self.sample, data.group_means])

    def some(self, state: Moments, mixture: Mixture, accuracy: float) -> Maxima:
        """Points where D is high, none of them near a value; near maxima will do.

        Args:
            state: One pass over the data at `mixture`.
            mixture: Decoder values, perhaps not at maxima yet.
            accuracy: Gain in ln D that a climb may leave.
        """
        apart = _NEAR if self.work["whole searches"] else _FAR
        worst = _FEW_WORST if self.work["searches"] + self.work["quick"] else _WORST
        points = self._on_part(state, mixture, [self.ends], worst, apart, _FEW_CYCLES)
        log_d, ahead = self._landscape(state).step(points)
        order = np.argsort(-log_d)
        if np.count_nonzero(log_d > MUCH) > _PLENTY:
            self.work["quick"] += 1
            return Maxima(ahead[order], log_d[order])
        self.work["searches"] += 1
        reached = self._within_reach(log_d, ahead - points)
        order = np.argsort(-reached)[: min(_FEW, np.count_nonzero(reached > -_HOPELESS))]
        return self._ascend(state, ahead[order], mixture, accuracy, apart)

    def whole(self, state: Moments, mixture: Mixture, accuracy: float) -> Maxima:
        r"""The largest ln D that is found from the whole sample, the worst explained, the values.

        With :math:`\delta = \max_i (\ln Z_i^{old} - \ln Z_i)` it is
        :math:`\ln D(y) \le \ln D^{old}(y) + \delta` everywhere. So as long as :math:`\delta` is
        small D can exceed 1 only where it was nearly 1 when the last such search was made, and
        climbs from the maxima of there will do.

        Args:
            state: One pass over the data at `mixture`.
            mixture: Decoder values.
            accuracy: Gain in ln D that a climb may leave.
        """
        self.work["whole searches"] += 1
        log_z, points = self.seen
        again = bool(np.max(log_z - state.log_z) < _HOPELESS)
        if again:
            points = points[~captured(points, mixture.values, _NEAR * self.reach)]
        else:
            self.work["from the whole sample"] += 1
            starts = [self.sample, self.data.group_means]
            points = self._on_part(state, mixture, starts, _WORST, _NEAR, _MANY_CYCLES)
        log_d, ahead = self._landscape(state).step(points)
        points = ahead[self._within_reach(log_d, ahead - points) > -_HOPELESS]
        refine = not self.single
        found = self._ascend(state, points, mixture, accuracy, _NEAR, refine=refine)
        # beside values that are not at their maxima yet D can be larger than at them
        move = state.means - mixture.values
        left = _GAINS * np.einsum("ij,ij->i", move, move) / (2 * self.temperature) > accuracy
        points = mixture.values[left]
        found = found.joined(self._ascend(state, points, None, accuracy, 1e-3, refine=refine))
        near = found.points[found.log_d > -_HOPELESS]
        if again:
            self.seen = (log_z, np.concatenate([self.seen[1], near]))
        else:
            self.seen = (state.log_z, near)
        return found

    def _landscape(self, state: Moments) -> Landscape:
        return Landscape(self.data, state.log_z, self.temperature, np.float32, self.workers)

    def _within_reach(self, log_d: Array, move: Array) -> Array:
        """The ln D that climbs are given: one step gains at least its squared length over 2 T."""
        gain = np.einsum("ij,ij->i", move, move) / (2 * self.temperature)
        return np.asarray(log_d + _GAINS * gain)

    def _on_part(
        self,
        state: Moments,
        mixture: Mixture,
        starts: list[Array],
        worst: int,
        apart: float,
        cycles: int,
    ) -> Array:
        """Where climbs over a part of the data end, but for those that end near a value."""
        data, distance = self.data, apart * self.reach
        points = np.concatenate([*starts, data.rows[worst_explained(data, state.log_z, worst)]])
        points = points[~captured(points, mixture.values, distance)]
        if len(data.rows) > 2 * (_PART + _WORST) and len(points):
            part, log_z = stratified_part(data, state.log_z, _WORST, _PART)
            points = ascend(
                part,
                log_z,
                self.temperature,
                points,
                known=mixture.values,
                accuracy=_ROUGH,
                capture=apart,
                refine=False,
                cycles=cycles,
                hopeless=_ON_PART,
                workers=self.workers,
            ).points
            points = points[~captured(points, mixture.values, distance)]
        self.ends = points
        return points

    def _ascend(
        self,
        state: Moments,
        points: Array,
        mixture: Mixture | None,
        accuracy: float,
        capture: float,
        *,
        refine: bool = False,
    ) -> Maxima:
        return ascend(
            self.data,
            state.log_z,
            self.temperature,
            points,
            known=None if mixture is None else mixture.values,
            accuracy=accuracy,
            capture=capture,
            hopeless=_HOPELESS,
            refine=refine,
            workers=self.workers,
        )
