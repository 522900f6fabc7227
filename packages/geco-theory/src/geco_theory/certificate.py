r"""The certificate of the global optimum, and the births that it points to [D9].

A distribution of decoder values is optimal iff :math:`S = \sup_y D(y) \le 1`,

.. math:: D(y) = \sum_i w_i e^{-|x_i - y|^2 / 2T} / Z_i .

The supremum is looked for by ascent from every data point and every decoder value: the step
:math:`y \leftarrow \sum_i r_i x_i / \sum_i r_i` with :math:`r_i` the terms of the sum never
lowers D. This is a strong test, not a proof.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geco_theory.mixtures import Mixture
from geco_theory.standard_data import Array, StandardData

_STEPS = 2000
_OVERRELAXATION = 1.7


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


def tilt(
    data: StandardData, log_z: Array, temperature: float, points: Array
) -> tuple[Array, Array]:
    r""":math:`\ln D(y)` and the next ascent point for `points` (p, r)."""
    rows = data.rows
    offset = np.log(data.weights) - log_z
    offset = offset - np.einsum("ij,ij->i", rows, rows) / (2 * temperature)
    log_d = np.empty(len(points))
    ahead = np.empty_like(points)
    block = max(16, 2**20 // len(rows))
    for begin in range(0, len(points), block):
        part = points[begin : begin + block]
        r = part @ (rows.T / temperature)
        r += offset
        shift = r.max(axis=1)
        r -= shift[:, None]
        np.exp(r, out=r)
        total = r.sum(axis=1)
        ahead[begin : begin + block] = (r @ rows) / total[:, None]
        log_d[begin : begin + block] = shift + np.log(total)
    log_d -= np.einsum("ij,ij->i", points, points) / (2 * temperature)
    return log_d, ahead


def ascend(
    data: StandardData,
    log_z: Array,
    temperature: float,
    starts: Array,
    *,
    accuracy: float = 1e-10,
) -> Maxima:
    """Ascend from every start; starts that meet go on as one."""
    points = starts
    reach = np.sqrt(temperature)
    done_points, done_log_d = [], []
    previous = np.full(len(points), -np.inf)
    gain_before = np.full(len(points), np.inf)
    for step in range(_STEPS):
        log_d, ahead = tilt(data, log_z, temperature, points)
        gain = log_d - previous
        known = np.isfinite(gain) & np.isfinite(gain_before)
        ratio = np.full(len(points), 0.999)
        np.divide(gain, gain_before, out=ratio, where=known)
        ratio = np.clip(ratio, 0.0, 0.999)
        left = gain * ratio / (1.0 - ratio)
        settled = (step > 2) & (gain >= 0) & (left < accuracy) & (gain < 1e-3)
        # far below: even ten times the extrapolated gain does not reach the top
        settled |= (step > 20) & (gain >= 0) & (log_d + 10 * left < -0.1) & (gain < 1e-4)
        if settled.any():
            done_points.append(ahead[settled])
            done_log_d.append(log_d[settled])
        going = ~settled
        if not going.any():
            break
        moved = ahead[going]
        if step % 3 == 2:
            moved = points[going] + _OVERRELAXATION * (moved - points[going])
        points, previous, gain_before = moved, log_d[going], np.maximum(gain[going], 1e-300)
        if step % 3 == 2:
            previous = np.full(len(points), -np.inf)  # an over-relaxed step proves nothing
            gain_before = np.full(len(points), np.inf)
        if step in (3, 6, 10) or step % 10 == 9:
            kept = distinct(points, log_d[going], 1e-2 * reach)
            points, previous, gain_before = points[kept], previous[kept], gain_before[kept]
    else:
        done_points.append(points)
        done_log_d.append(log_d[going] if len(log_d) != len(points) else log_d)
    points = np.concatenate(done_points)
    log_d = tilt(data, log_z, temperature, points)[0]
    kept = distinct(points, log_d, 5e-3 * reach)
    return Maxima(points[kept], log_d[kept])


def distinct(points: Array, height: Array, distance: float) -> NDArray[np.intp]:
    """Indices of points, highest first, none closer than `distance` to a higher one kept."""
    order = np.argsort(-height, kind="stable")
    squares = np.einsum("ij,ij->i", points, points)
    alive = np.ones(len(points), dtype=bool)
    kept = []
    for index in order:
        if not alive[index]:
            continue
        kept.append(index)
        gaps = squares + squares[index] - 2.0 * (points @ points[index])
        alive &= gaps >= distance**2
    return np.asarray(kept)


def certify(data: StandardData, log_z: Array, temperature: float, mixture: Mixture) -> Maxima:
    """The maxima of D found from all data points and all decoder values."""
    starts = np.concatenate([data.rows, mixture.values])
    return ascend(data, log_z, temperature, starts)


def births(maxima: Maxima, mixture: Mixture, temperature: float, excess: float) -> Array:
    """The maxima with ln D above `excess` that are no decoder value already, shape (b, r)."""
    points = maxima.points[maxima.log_d > excess]
    if len(points) == 0:
        return points
    squares = np.einsum("ij,ij->i", mixture.values, mixture.values)
    gaps = squares - 2.0 * (points @ mixture.values.T)
    gaps += np.einsum("ij,ij->i", points, points)[:, None]
    return np.asarray(points[gaps.min(axis=1) > (5e-3) ** 2 * temperature])
