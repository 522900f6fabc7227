r"""The curvature of the free energy in the decoder values, factored.

With :math:`G_a` the rows :math:`\sqrt{w_i q_{ia}/(m_a T)}\,(x_i - \psi_a)` the covariance of the
data under value a is :math:`C_a = T\,G_a^T G_a`, and the part of the Hessian that belongs to one
value alone is :math:`B_a = (m_a/T)(I - G_a^T G_a)`, positive at a global optimum [D3, D9]. The
values act on each other only through the n x n matrix

.. math::
    M = S_\psi B^{-1} S_\psi^T
    = \sum_a \sqrt{q_a}\; G_a (I - G_a^T G_a)^{-1} G_a^T \sqrt{q_a},

of which :math:`I + M` is factored. With :math:`M = G G^T` for G of as many columns as there are
coordinates of values, K r, the smaller of :math:`I + G G^T` (n x n) and :math:`I + G^T G` is
taken; :math:`(I + G G^T)^{-1} = I - G (I + G^T G)^{-1} G^T`. It steers the Newton steps and
decides no result (gradients are computed from everything, in double precision), so it is built
lean: in single precision, from the rows that matter to a value, in the leading principal axes;
along axes of little variance the values are taken as not curved.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from geco_theory._typing import Array
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture

_NEGLIGIBLE = 1e-5  # share of a value's mass below which a row is left out of its covariance
_LEAST_POSTERIOR = 1e-3  # posterior below which a row is left out of M
_FLAT = 1e-3  # variance over T that the left-out axes may hold together
_CHUNK = 2**19  # numbers held at once in a group of supports of similar length
_PRIMAL = 0.5  # of the rows: coordinates of values up to which I + G^T G is factored
_DENSE = 0.45  # share of the rows above which a support is taken to be all of them
Single = NDArray[np.float32]


@dataclass(frozen=True)
class Curvature:
    r"""The factored curvature.

    Args:
        inverses: (k, s, s) the matrices :math:`(I - C_a/T)^{-1}` in the first s principal axes.
        factor: The lower Cholesky factor of I + M, or of I + G^T G.
        features: G, (n, k s), if that is the smaller one.
    """

    inverses: Single
    factor: Array
    features: Array | None = None

    def select(self, kept: NDArray[np.bool_]) -> "Curvature":
        """The same curvature for part of the values."""
        return Curvature(self.inverses[kept], self.factor, self.features)

    def apply(self, vectors: Array) -> Array:
        """(I - C_a/T)^-1 times one vector per value, (k, r)."""
        s = self.inverses.shape[1]
        out = vectors.copy()
        single = vectors[:, :s, None].astype(np.float32)
        out[:, :s] = np.matmul(self.inverses, single)[:, :, 0]
        return out

    def solve(self, right: Array) -> Array:
        """(I + M)^-1 times (n,)."""
        if self.features is None:
            return np.asarray(linalg.cho_solve((self.factor, True), right, check_finite=False))
        inner = linalg.cho_solve((self.factor, True), self.features.T @ right, check_finite=False)
        return np.asarray(right - self.features @ inner)

    def quadratic(self, columns: Array) -> Array:
        """R^T (I + M)^-1 R for R (n, c); never indefinite."""
        if self.features is None:
            design = linalg.solve_triangular(
                self.factor, columns, lower=True, overwrite_b=True, check_finite=False
            )
            return np.asarray(design.T @ design)
        # with Z = (I + G^T G)^-1 G^T R and X = R - G Z it is X^T X + Z^T Z
        inner = linalg.cho_solve((self.factor, True), self.features.T @ columns)
        rest = columns - self.features @ inner
        return np.asarray(rest.T @ rest + inner.T @ inner)


def curvature(
    data: StandardData, mixture: Mixture, temperature: float, q: Array, least: float
) -> Curvature:
    """Factor the curvature at `mixture`, whose responsibilities (n, k) are `q`.

    Args:
        data: The data.
        mixture: Decoder values and masses.
        temperature: T, in standard units.
        q: (n, k) responsibilities.
        least: Eigenvalues of I - C_a/T are raised to this, negative ones by their size.
    """
    builder = _Builder(data, mixture, temperature, q, least)
    order = np.argsort(builder.sizes, kind="stable")
    begin, k = 0, len(order)
    while begin < k:
        smallest = max(int(builder.sizes[order[begin]]), 1)
        limit = max(int(1.3 * smallest), 8)
        end = int(np.searchsorted(builder.sizes[order], limit, side="right"))
        end = max(begin + 1, min(end, begin + _CHUNK // (limit * builder.rows.shape[1])))
        builder.add(order[begin:end])
        begin = end
    features = builder.features
    # in double precision: what the inverse takes off again must be what was put in
    system = builder.system.astype(np.float64) if features is None else features.T @ features
    system[np.diag_indices(len(system))] += 1.0
    factor = linalg.cholesky(system, lower=True, overwrite_a=True, check_finite=False)
    return Curvature(builder.inverses, factor, features)


class _Builder:
    """The sum over values, collected group by group of values with supports of similar length."""

    def __init__(
        self,
        data: StandardData,
        mixture: Mixture,
        temperature: float,
        q: Array,
        least: float,
    ) -> None:
        axes = data.leading_axes(_FLAT * temperature)
        n, k = q.shape
        self.least = np.float32(max(least, 1e-4))
        self.temperature = np.float32(temperature)
        self.rows = np.ascontiguousarray(data.rows[:, :axes], dtype=np.float32)
        self.values = mixture.values[:, :axes].astype(np.float32)
        self.q = np.ascontiguousarray(q.T, dtype=np.float32)
        local = self.q * data.weights.astype(np.float32)
        local /= local.sum(axis=1)[:, None]
        local[local < _NEGLIGIBLE] = 0.0
        self.local = local
        self.sizes = np.count_nonzero(local, axis=1)
        self.inverses: Single = np.empty((k, axes, axes), np.float32)
        primal = k * axes <= _PRIMAL * n
        self.features: Array | None = np.zeros((n, k * axes)) if primal else None
        self.system: Single = np.zeros((0, 0) if primal else (n, n), np.float32)

    def add(self, group: NDArray[np.intp]) -> None:
        """Add the values of one group."""
        width = int(self.sizes[group].max())
        if width > _DENSE * len(self.rows):
            self._add_dense(group)
        else:
            self._add_sparse(group, width)

    def _add_sparse(self, group: NDArray[np.intp], width: int) -> None:
        """Values that few rows matter to, all supports filled up to the same length."""
        local = self.local[group]
        support = np.argpartition(-local, width - 1, axis=1)[:, :width]
        weight = np.take_along_axis(local, support, axis=1)
        posterior = self.q[group[:, None], support]
        gaps = self.rows[support]
        gaps -= self.values[group][:, None, :]
        gaps *= np.sqrt(weight / self.temperature)[:, :, None]
        if width < self.rows.shape[1]:
            small = np.eye(width, dtype=np.float32) - gaps @ _t(gaps)
            inverses = _t(gaps) @ (self._invert(small) @ gaps)
            inverses += np.eye(self.rows.shape[1], dtype=np.float32)
        else:
            inverses = self._invert(self._matrices(gaps))
        self.inverses[group] = inverses
        # heaviest posterior first: the leading columns are those that matter to M
        order = np.argsort(-posterior, axis=1)
        counts = np.count_nonzero(posterior > _LEAST_POSTERIOR, axis=1)
        order = order[:, : max(int(counts.max()), 1)]
        leading = np.take_along_axis(gaps, order[:, :, None], axis=1)
        leading *= np.sqrt(np.take_along_axis(posterior, order, axis=1))[:, :, None]
        support = np.take_along_axis(support, order, axis=1)
        if self.features is not None:
            parts = leading @ np.linalg.cholesky(inverses)
            for a, at, part, count in zip(group, support, parts, counts, strict=True):
                self.features[at[:count], self._columns(a)] = part[:count]
            return
        blocks = (leading @ inverses) @ _t(leading)
        for at, block, count in zip(support, blocks, counts, strict=True):
            self.system[at[:count, None], at[:count]] += block[:count, :count]

    def _add_dense(self, group: NDArray[np.intp]) -> None:
        """Values that most rows matter to: all rows, and one product for the whole group."""
        gaps = self.rows[None] - self.values[group][:, None, :]
        gaps *= np.sqrt(self.local[group] / self.temperature)[:, :, None]
        inverses = self._invert(self._matrices(gaps))
        self.inverses[group] = inverses
        gaps = gaps @ np.linalg.cholesky(inverses)
        gaps *= np.sqrt(self.q[group])[:, :, None]
        if self.features is not None:
            for a, part in zip(group, gaps, strict=True):
                self.features[:, self._columns(a)] = part
            return
        features = np.ascontiguousarray(gaps.transpose(1, 0, 2)).reshape(len(self.rows), -1)
        self.system += features @ features.T

    def _columns(self, a: int) -> slice:
        """The columns of G that belong to a value."""
        axes = self.rows.shape[1]
        return slice(a * axes, (a + 1) * axes)

    def _matrices(self, gaps: Single) -> Single:
        """I - C_a/T of a group."""
        return np.eye(self.rows.shape[1], dtype=np.float32) - _t(gaps) @ gaps

    def _invert(self, matrices: Single) -> Single:
        """Inverses of symmetric matrices, eigenvalues first raised to the least value."""
        size = matrices.shape[-1]
        out = np.empty_like(matrices)
        # eigenvalues are at most 1, so this bounds the largest one of the inverse
        bound = size - 1 + 1.0 / self.least
        upper = np.triu_indices(size, 1)
        for index, matrix in enumerate(matrices):
            factor, failed = linalg.lapack.spotrf(matrix, lower=1)
            if not failed:
                inverse, _ = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
                if inverse.trace() < bound:
                    inverse[upper] = inverse.T[upper]
                    out[index] = inverse
                    continue
            values, vectors = np.linalg.eigh(matrix.astype(np.float64))
            raised = np.maximum(np.abs(values), self.least)
            out[index] = (vectors / raised) @ vectors.T
        return out


def _t(matrices: Single) -> Single:
    return matrices.transpose(0, 2, 1)
