r"""The landscape D(y) and the ascents on it: mean shift.

The step :math:`y \leftarrow \sum_i r_i x_i / \sum_i r_i`, with :math:`r_i = w_i e^{-|x_i - y|^2
/ 2T} / Z_i`, is mean shift (Fukunaga and Hostetler 1975; Cheng 1995) on data weighted by
:math:`w_i / Z_i`, and never lowers D. It is extrapolated in squares (SQUAREM, Varadhan and Roland
2008), taken back where D falls, and runs in single precision until climbs meet each other or a
known maximum; every height that is reported is computed in double precision.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from geco_theory._typing import Array
from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.pairs import expansion_holds, exponents
from geco_theory.free_energy.parallel import over_rows
from geco_theory.linalg import squarem

_BLOCK = 2**19  # numbers in one block of pairs
_MOST_CYCLES = 800  # of the ascent from one point
_NEWTON_AXES = 128  # of the data up to which Newton steps are taken
_NEWTON_STEPS = 30
_LEAST_SHARE = 1e-3  # of a Newton step that is still tried
_LEAST_CURVATURE = 1e-6  # to which sizes of curvatures are raised
_NEGLIGIBLE = 1e-12  # share of D of a row that is left out of its curvature
_MEET = 0.4  # times that at which they arrive at a known maximum: two climbs go on as one
_GAINS = 20.0  # steps like the last one that a climb is given to get above 0
_POINTS = 256  # points in one block
_ROWS = 1024  # rows in one block, at least


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
        self.exact = not expansion_holds(data.largest_square, temperature)
        self.temperature = temperature
        self.workers = workers
        self.rows = data.rows
        if self.exact:
            self.offset = np.log(data.weights) - log_z
            return
        offset = np.log(data.weights) - log_z - data.squares / (2 * temperature)
        self.ceiling = float(offset.max())
        self.left = np.empty((r + 1, n), dtype)
        self.left[:r] = data.rows.T / temperature
        self.left[r] = offset - self.ceiling
        self.right = data.with_ones(dtype)
        self.dtype = dtype

    def step(self, points: Array) -> tuple[Array, Array]:
        r""":math:`\ln D` at `points` (p, r), and the next point of each climb."""
        if self.exact:
            return self._exact_step(points)
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

    def newton_moves(self, points: Array, ahead: Array) -> Array:
        """Newton steps (p, r) at points whose mean-shift steps lead to `ahead`."""
        moves = np.zeros(points.shape)
        r = points.shape[1]
        reach = np.sqrt(self.temperature)
        for i, (point, target) in enumerate(zip(points, ahead, strict=True)):
            terms = np.append(point, 1.0) @ self.left
            terms = np.exp(terms - terms.max())
            near = np.flatnonzero(terms > _NEGLIGIBLE * terms.sum())
            gaps = self.rows[near] - target
            gaps *= np.sqrt(terms[near] / (terms[near].sum() * self.temperature))[:, None]
            values, vectors = np.linalg.eigh(np.eye(r) - gaps.T @ gaps)
            sizes = np.maximum(np.abs(values), _LEAST_CURVATURE)
            move = vectors @ ((vectors.T @ (target - point)) / sizes)
            moves[i] = move * min(1.0, reach / max(float(np.linalg.norm(move)), 1e-300))
        return moves

    def _exact_step(self, points: Array) -> tuple[Array, Array]:
        """The same from the differences of all pairs."""
        log_d, ahead = np.empty(len(points)), np.empty(points.shape)

        def stretch(first: int, last: int) -> None:
            for begin in range(first, last, _POINTS):
                block = slice(begin, min(begin + _POINTS, last))
                terms = self.offset - exponents(points[block], self.rows, self.temperature)
                shift = terms.max(axis=1)
                terms = np.exp(terms - shift[:, None])
                total = terms.sum(axis=1)
                log_d[block] = shift + np.log(total)
                ahead[block] = (terms @ self.rows) / total[:, None]

        over_rows(stretch, len(points), self.workers, least=_POINTS)
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


def climb(
    landscape: Landscape,
    starts: Array,
    known: Array,
    cycles: int,
    accuracy: float,
    capture: float,
    hopeless: float = np.inf,
) -> tuple[Array, Array]:
    """Squared ascent steps; climbs that meet go on as one, arrivals at known maxima end.

    Climbs that will stay below -`hopeless` in ln D, many more steps like the last included, are
    given up.

    Returns:
        Points that settled or were still going, and whether each settled.
    """
    if len(starts) == 0:
        return starts, starts
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
        ahead, stretch, length = squarem(
            points, first, second, _row_lengths, 4.0 ** min(cycle + 1, 20)
        )
        # what a geometric series of further gains would still bring
        gain = np.maximum(gain, length**2 / (2 * landscape.temperature))
        left = gain * stretch
        settled = (left < accuracy) & (cycle > 1)
        settled |= (middle + 20 * left < -0.05) & (cycle > 3) & (length < 0.01 * reach)
        going: NDArray[np.bool_] = middle + _GAINS * gain > -hopeless
        if settled.any():
            ended.append(second[settled & going])
        going &= ~settled
        if cycle < 12 or cycle % 8 == 0:
            going &= ~captured(second, known, capture * reach)
            chosen = np.flatnonzero(going)
            kept = distinct(second[chosen], middle[chosen], _MEET * capture * reach)
            going = np.zeros(len(going), dtype=bool)
            going[chosen[kept]] = True
        points, safe, floor = ahead[going], second[going], middle[going]
        if len(points) == 0:
            break
    settled_points = np.concatenate([*ended, np.empty((0, starts.shape[1]))])
    return settled_points, safe if len(points) else np.empty((0, starts.shape[1]))


def _row_lengths(vectors: Array) -> Array:
    return np.asarray(np.linalg.norm(vectors, axis=1))


def newton_ascent(landscape: Landscape, points: Array, accuracy: float) -> Array:
    r"""Newton steps on ln D from every point, each raising it.

    With g the mean-shift step and C the covariance of the data under the terms of D the Hessian is
    :math:`(C - T) / T^2`, so the step is :math:`(I - C/T)^{-1} (g - y)`, with the eigenvalues
    replaced by their sizes where D is not concave. Where mean shift crawls, along a ridge or
    beside a value about to be born, it takes a few.
    """
    if len(points) == 0 or points.shape[1] > _NEWTON_AXES or landscape.exact:
        return points
    height, ahead = landscape.step(points)
    found, going = points.copy(), np.arange(len(points))
    share = np.ones(len(points))
    for _ in range(_NEWTON_STEPS):
        move = landscape.newton_moves(found[going], ahead[going])
        gain = np.einsum("ij,ij->i", move, ahead[going] - found[going]) / landscape.temperature
        kept = (gain > 0.01 * accuracy) & (share[going] > _LEAST_SHARE)
        going, move = going[kept], move[kept]
        if len(going) == 0:
            break
        trial = found[going] + share[going, None] * move
        there, next_ahead = landscape.step(trial)
        better = there > height[going]
        share[going] = np.where(better, 1.0, 0.25 * share[going])
        raised = going[better]
        found[raised], height[raised] = trial[better], there[better]
        ahead[raised] = next_ahead[better]
    return found


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
    squares = np.einsum("ij,ij->i", points, points)
    own = np.einsum("ij,ij->i", known, known)
    if not expansion_holds(max(squares.max(), own.max()), distance**2):
        return np.asarray(cdist(points, known, "sqeuclidean").min(axis=1) < distance**2)
    least = (own - 2.0 * (points @ known.T)).min(axis=1) + squares
    return np.asarray(least < distance**2)


def climb_to_maximum(
    data: StandardData, mixture: Mixture, temperature: float, start: Array
) -> tuple[Array, float]:
    r"""The local maximum of D that the ascent from one point (r,) ends in, and ln D there."""
    landscape = Landscape(data, moments(data, mixture, temperature).log_z, temperature)
    none = np.empty((0, len(start)))
    points = np.concatenate(climb(landscape, start[None], none, _MOST_CYCLES, 1e-15, 5e-3))
    return points[0], float(landscape.step(points[:1])[0][0])
