r"""The certificate of the global optimum, and the births that it points to [D9].

A distribution of decoder values is optimal iff :math:`S = \sup_y D(y) \le 1`,

.. math:: D(y) = \sum_i w_i e^{-|x_i - y|^2 / 2T} / Z_i .

The supremum is looked for by ascent from the data points and the decoder values: the step
:math:`y \leftarrow \sum_i r_i x_i / \sum_i r_i`, with :math:`r_i` the terms of the sum, never
lowers D. This is a strong test, not a proof. The ascents are extrapolated (squared steps, taken
back when D falls), and run in single precision until they meet each other or a known maximum;
every height that is reported is computed in double precision.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geco_theory.kernels import moments
from geco_theory.mixtures import Mixture
from geco_theory.standard_data import Array, StandardData
from geco_theory.workers import over_rows

_BULK_CYCLES = 40
_FINE_CYCLES = 400
_CAPTURE = 0.05  # in sqrt(T): a climb this near to a known maximum has arrived there
_SAME = 0.02  # in sqrt(T): climbs this near to each other go on as one
_HOPELESS = 0.01  # below -this in ln D the end of a climb in single precision is left
_BLOCK = 2**19  # numbers in one block of pairs
_POINTS = 256  # points in one block
_ROWS = 1024  # rows in one block, at least


@dataclass(frozen=True)
class Maxima:
    r"""Local maxima of D that the ascents ended in.

    Args:
        points: (p, r) where they are, highest first.
        log_d: (p,) :math:`\ln D` there.
    """

    points: Array
    log_d: Array

    @property
    def log_supremum(self) -> float:
        r"""The largest :math:`\ln D` found: :math:`\ln S`."""
        return float(self.log_d[0])


class Landscape:
    r"""The function :math:`\ln D` of one solution.

    Args:
        data: The data.
        log_z: (n,) :math:`\ln Z_i` of the solution.
        temperature: T, in standard units.
        dtype: Precision of the pairs.
        workers: Threads.
    """

    def __init__(
        self,
        data: StandardData,
        log_z: Array,
        temperature: float,
        dtype: type[np.floating] = np.float64,
        workers: int = 1,
    ) -> None:
        n, r = data.rows.shape
        offset = np.log(data.weights) - log_z - data.squares / (2 * temperature)
        self.ceiling = float(offset.max())
        self.left = np.empty((r + 1, n), dtype)
        self.left[:r] = data.rows.T / temperature
        self.left[r] = offset - self.ceiling
        self.right = data.with_ones(dtype)
        self.temperature = temperature
        self.dtype = dtype
        self.workers = workers

    def step(self, points: Array) -> tuple[Array, Array]:
        r""":math:`\ln D` at `points` (p, r), and the next point of each climb."""
        p, r = points.shape
        log_d = np.empty(p)
        ahead = np.empty((p, r))
        for begin in range(0, p, _POINTS):
            part = np.ones((min(_POINTS, p - begin), r + 1), self.dtype)
            part[:, :r] = points[begin : begin + _POINTS]
            shift, sums = self._sums(part)
            ahead[begin : begin + _POINTS] = sums[:, :r] / sums[:, r:]
            log_d[begin : begin + _POINTS] = np.log(sums[:, r]) + shift
        log_d += self.ceiling - np.einsum("ij,ij->i", points, points) / (2 * self.temperature)
        return log_d, ahead

    def _sums(self, part: NDArray[np.floating]) -> tuple[Array, Array]:
        """Sums over the rows of the terms, times (x, 1), and the exponents taken out of them.

        Blocks of rows stay in the cache for all points; the largest exponent grows with them.
        """
        rows = max(_ROWS, _BLOCK // len(part))

        def stretch(first: int, last: int) -> tuple[Array, Array]:
            shift = np.full(len(part), -np.inf)
            sums = np.zeros((len(part), self.right.shape[1]))
            for begin in range(first, last, rows):
                end = min(begin + rows, last)
                terms = part @ self.left[:, begin:end]
                higher = np.maximum(shift, terms.max(axis=1))
                terms -= higher[:, None].astype(self.dtype)
                np.exp(terms, out=terms)
                sums *= np.exp(shift - higher)[:, None]
                sums += terms @ self.right[begin:end]
                shift = higher
            return shift, sums

        shifts, parts = zip(*over_rows(stretch, len(self.right), self.workers), strict=True)
        highest = np.max(shifts, axis=0)
        scaled = [
            np.exp(shift - highest)[:, None] * sums
            for shift, sums in zip(shifts, parts, strict=True)
        ]
        return highest, np.sum(scaled, axis=0)


def _climb(
    landscape: Landscape,
    starts: Array,
    known: Array,
    cycles: int,
    accuracy: float,
    capture: float,
) -> tuple[Array, Array]:
    """Squared ascent steps; climbs that meet go on as one, arrivals at known maxima end.

    Returns:
        Points that settled or were still going, and whether each settled.
    """
    reach = np.sqrt(landscape.temperature)
    points, safe, floor = starts, starts, np.full(len(starts), -np.inf)
    ended: list[Array] = []
    for cycle in range(cycles):
        height, first = landscape.step(points)
        fallen = height < floor
        if fallen.any():  # take the extrapolation back
            points = np.where(fallen[:, None], safe, points)
            again, back = landscape.step(points[fallen])
            height[fallen], first[fallen] = again, back
        middle, second = landscape.step(first)
        gain = middle - height
        one = first - points
        change = second - first - one
        length = np.linalg.norm(one, axis=1)
        bend = np.linalg.norm(change, axis=1)
        stretch = np.maximum(length / np.maximum(bend, 1e-300), 1.0)
        # what a geometric series of further gains would still bring
        left = np.maximum(gain, length**2 / (2 * landscape.temperature)) * stretch
        settled = (left < accuracy) & (cycle > 1)
        settled |= (middle + 20 * left < -0.05) & (cycle > 3) & (length < 0.01 * reach)
        stretch = np.minimum(stretch, 4.0 ** min(cycle + 1, 20))[:, None]
        ahead = points + 2 * stretch * one + stretch**2 * change
        if settled.any():
            ended.append(second[settled])
        going = ~settled
        if cycle < 12 or cycle % 8 == 0:
            going &= ~captured(second, known, capture * reach)
            chosen = np.flatnonzero(going)
            kept = distinct(second[chosen], middle[chosen], 0.4 * capture * reach)
            going = np.zeros(len(going), dtype=bool)
            going[chosen[kept]] = True
        points, safe, floor = ahead[going], second[going], middle[going]
        if len(points) == 0:
            break
    settled_points = np.concatenate([*ended, np.empty((0, starts.shape[1]))])
    return settled_points, safe if len(points) else np.empty((0, starts.shape[1]))


def ascend(
    data: StandardData,
    log_z: Array,
    temperature: float,
    starts: Array,
    *,
    known: Array | None = None,
    delicate: Array | None = None,
    accuracy: float = 1e-10,
    capture: float = 5e-3,
    climb_known: bool = False,
    refine: bool = True,
    workers: int = 1,
) -> Maxima:
    """Ascend from every start.

    Args:
        data: The data.
        log_z: (n,) ln Z of the solution.
        temperature: T, in standard units.
        starts: (p, r) points to climb from.
        known: (k, r) maxima that are known already; climbs that come near one end there.
        delicate: (p, r) further starts beside values, climbed from only where ln D is above 0.
        accuracy: Gain in ln D that a climb may still have before it when it is left.
        capture: How near that is for a climb in double precision, in units of sqrt(T).
        climb_known: Climb from `known` as well: needed where they are decoder values that are
            not at their maxima yet, beside which D can be larger than at them.
        refine: Whether the climbs that may end above 0 go on in double precision; without, they
            end within about 1e-5 below the maxima.
        workers: Threads.
    """
    none = np.empty((0, starts.shape[1]))
    known = none if known is None else known
    bulk = Landscape(data, log_z, temperature, np.float32, workers)
    fine = Landscape(data, log_z, temperature, workers=workers)
    reach = np.sqrt(temperature)
    early = max(_CAPTURE, capture) if capture > 2e-3 else capture
    settled, going = _climb(bulk, starts, known, _BULK_CYCLES, max(accuracy, 1e-5), early)
    if refine:  # what has settled far below 0 gains no more than the accuracy of that
        settled = settled[bulk.step(settled)[0] > -_HOPELESS - 3 * max(accuracy, 1e-5)]
    points = np.concatenate([settled, going])
    points = points[~captured(points, known, early * reach)]
    if delicate is not None and len(delicate):
        rising = fine.step(delicate)[0] > 0.1 * accuracy
        points = np.concatenate([points, delicate[rising]])
    if len(points):
        points = points[distinct(points, bulk.step(points)[0], 0.1 * _SAME * reach)]
        if refine:
            points = np.concatenate(_climb(fine, points, known, _FINE_CYCLES, accuracy, capture))
    if climb_known:
        points = np.concatenate(
            [points, *_climb(fine if refine else bulk, known, none, 20, accuracy, 1e-4)]
        )
    points = np.concatenate([points, known])
    log_d = fine.step(points)[0]
    kept = distinct(points, log_d, 5e-3 * reach)
    return Maxima(points[kept], log_d[kept])


def distinct(points: Array, height: Array, distance: float) -> NDArray[np.intp]:
    """Indices of points, highest first, none closer than `distance` to a higher one kept."""
    order = np.argsort(-height, kind="stable")
    if len(points) < 2:
        return order
    # a one-dimensional shadow: only points that are near in it can be near
    spread = points - points.mean(axis=0)
    axis = spread[np.argmax(np.einsum("ij,ij->i", spread, spread))]
    size = float(np.linalg.norm(axis))
    if size == 0.0:
        return order[:1]
    shadow = spread @ (axis / size)
    by_shadow = np.argsort(shadow)
    sorted_shadow = shadow[by_shadow]
    low = np.searchsorted(sorted_shadow, shadow - distance)
    high = np.searchsorted(sorted_shadow, shadow + distance, side="right")
    alive = np.ones(len(points), dtype=bool)
    kept = []
    for index in order:
        if not alive[index]:
            continue
        kept.append(index)
        near = by_shadow[low[index] : high[index]]
        if len(near) > 1:
            gaps = points[near] - points[index]
            alive[near[np.einsum("ij,ij->i", gaps, gaps) < distance**2]] = False
    return np.asarray(kept)


def captured(points: Array, known: Array, distance: float) -> NDArray[np.bool_]:
    """Which points are closer than `distance` to a known maximum."""
    if len(known) == 0 or len(points) == 0:
        return np.zeros(len(points), dtype=bool)
    gaps = np.einsum("ij,ij->i", known, known) - 2.0 * (points @ known.T)
    least = gaps.min(axis=1) + np.einsum("ij,ij->i", points, points)
    return np.asarray(least < distance**2)


def births(maxima: Maxima, mixture: Mixture, temperature: float, excess: float) -> Array:
    """The maxima with ln D above `excess` that are no decoder value already, shape (b, r)."""
    points = maxima.points[maxima.log_d > excess]
    return points[~captured(points, mixture.values, 5e-3 * np.sqrt(temperature))]


def climb_to_maximum(
    data: StandardData, mixture: Mixture, temperature: float, start: Array
) -> tuple[Array, float]:
    r"""The local maximum of D that the ascent from one point (r,) ends in, and ln D there."""
    landscape = Landscape(data, moments(data, mixture, temperature).log_z, temperature)
    none = np.empty((0, len(start)))
    points = np.concatenate(_climb(landscape, start[None], none, 2 * _FINE_CYCLES, 1e-15, 5e-3))
    return points[0], float(landscape.step(points[:1])[0][0])
