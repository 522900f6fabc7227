r"""Data as the solvers see them: distinct rows, centred, rotated to their rank, of unit size.

The free energy depends on the data only through differences, so a shift and a rotation change
nothing, and lengths can be divided by :math:`s = \\sqrt{\\operatorname{mean} |x|^2}` if the
temperature is divided by :math:`s^2`. Equal rows become one row with a larger weight.
"""

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage

from geco_theory._typing import Array
from geco_theory.linalg import principal_axes

_SMALLEST, _LARGEST = 1e-140, 1e140  # of the spread of data
_GROUPS = 256  # groups of rows, at most, whose means are kept
_TREE_ROWS = 2048  # rows that the groups are made of, at most
_SUBSETS = 8  # of each size
_LEAF = 256  # rows that lie side by side in no order
_TREE_AXES = 32  # leading axes that the order looks at


@dataclass(frozen=True)
class StandardData:
    """Distinct rows of a dataset in standard coordinates.

    Args:
        rows: (n, r) distinct data points, centred, rotated to their rank r, mean square length 1.
        weights: (n,) share of the samples that each row stands for; sums to 1.
        counts: (n,) number of samples that each row stands for.
        inverse: (n_samples,) the row of each sample.
        mean: (d,) mean of the samples, in the user's units.
        axes: (d, r) orthonormal axes of the standard coordinates.
        scale: Length that one standard unit stands for, in the user's units.
        variances: (r,) covariance eigenvalues in standard units, descending.
    """

    rows: Array
    weights: Array
    counts: NDArray[np.int64]
    inverse: NDArray[np.intp]
    mean: Array
    axes: Array
    scale: float
    variances: Array

    @property
    def temperature_unit(self) -> float:
        """The user's temperature that is 1 in standard units: the squared scale."""
        return self.scale**2

    def leading_axes(self, rest: float) -> int:
        """How many principal axes hold all but a variance of `rest`; at least one."""
        tail = np.cumsum(self.variances[::-1])[::-1]
        return max(1, int(np.sum(tail > rest)))

    @cached_property
    def squares(self) -> Array:
        """(n,) squared lengths of the rows."""
        return np.asarray(np.einsum("ij,ij->i", self.rows, self.rows))

    @cached_property
    def group_means(self) -> Array:
        """(g, r) the mean of all rows, of the groups of a cut tree, and of subsets at random.

        Where data are nearly equidistant no climb from a row leads to what many rows share. The
        tree is that of Ward, cut at every number of groups up to 256; the subsets have 2, 4, 8,
        ... rows. Where rows are many both are made from a part of them, the same at every call.
        """
        generator = np.random.default_rng(0)
        rows, weights = self.rows, self.weights
        if len(rows) > _TREE_ROWS:
            chosen = generator.choice(len(rows), _TREE_ROWS, replace=False)
            rows, weights = rows[chosen], weights[chosen]
        n = len(rows)
        means: list[Array] = [np.zeros((1, rows.shape[1]))]
        if n > 2:
            sums = np.concatenate([weights[:, None] * rows, np.zeros((n - 1, rows.shape[1]))])
            mass = np.concatenate([weights, np.zeros(n - 1)])
            for step, (left, right) in enumerate(linkage(rows, "ward")[:, :2].astype(int)):
                sums[n + step] = sums[left] + sums[right]
                mass[n + step] = mass[left] + mass[right]
            last = slice(max(n, 2 * n - 1 - _GROUPS), 2 * n - 2)
            means.append(sums[last] / mass[last, None])
        size = 2
        while size < n:
            chosen = np.argsort(generator.random((_SUBSETS, n)), axis=1)[:, :size]
            share = weights[chosen] / weights[chosen].sum(axis=1)[:, None]
            means.append(np.einsum("ij,ijr->ir", share, rows[chosen]))
            size *= 2
        return np.concatenate(means)

    @cached_property
    def in_order(self) -> "StandardData":
        """The same data with rows that are near each other side by side: leaves of a tree.

        Groups are cut in two at the median along their leading principal axis.
        """
        leading = self.rows[:, :_TREE_AXES]
        order = np.arange(len(leading))
        edges = [0, len(order)]
        while edges[1] > _LEAF:  # the first group is never the smaller one
            halves = []
            for begin, end in itertools.pairwise(edges):
                part = order[begin:end]
                gaps = leading[part] - leading[part].mean(axis=0)
                axis = np.linalg.eigh(gaps.T @ gaps)[1][:, -1]
                order[begin:end] = part[np.argsort(gaps @ axis, kind="stable")]
                halves += [begin, (begin + end + 1) // 2]
            edges = [*halves, len(order)]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return replace(
            self,
            rows=self.rows[order],
            weights=self.weights[order],
            counts=self.counts[order],
            inverse=place[self.inverse],
        )

    @cached_property
    def largest_square(self) -> float:
        """The squared length of the row that is farthest from the mean."""
        return float(self.squares.max())

    @cached_property
    def _matrices(self) -> dict[tuple[str, type[np.floating]], NDArray[np.floating]]:
        return {}

    def with_ones(self, dtype: type[np.floating]) -> NDArray[np.floating]:
        """(n, r + 1) the rows and a column of ones, in single or in double precision."""
        key = ("with ones", dtype)
        if key not in self._matrices:
            ones = np.ones((len(self.rows), 1))
            self._matrices[key] = np.concatenate([self.rows, ones], axis=1).astype(dtype)
        return self._matrices[key]

    def weighted(self, dtype: type[np.floating]) -> NDArray[np.floating]:
        """(n, r + 1) `with_ones`, each row times its weight."""
        key = ("weighted", dtype)
        if key not in self._matrices:
            rows = self.weights[:, None] * self.with_ones(dtype)
            self._matrices[key] = rows.astype(dtype)
        return self._matrices[key]

    def to_user(self, values: Array) -> Array:
        """Points (k, r) in standard coordinates as points (k, d) in the user's units."""
        return self.mean + self.scale * (values @ self.axes.T)

    def to_standard(self, points: Array) -> Array:
        """Points (k, d) in the user's units as points (k, r) in standard coordinates.

        What lies outside the span of the data is dropped: it adds the same to the distance to
        every decoder value.
        """
        return np.asarray(((points - self.mean) / self.scale) @ self.axes)

    @classmethod
    def from_samples(cls, samples: Array, sample_weight: Array | None = None) -> "StandardData":
        """Bring samples (n_samples, d) to standard coordinates.

        Args:
            samples: (n_samples, d) finite numbers.
            sample_weight: (n_samples,) non-negative; samples without weight take no part.

        Raises:
            ValueError: If the samples do not vary.
        """
        if sample_weight is not None:
            samples, sample_weight = samples[sample_weight > 0], sample_weight[sample_weight > 0]
        distinct, inverse, counts = _distinct_rows(samples)
        weights: Array = counts / counts.sum()
        if sample_weight is not None:
            shares = np.bincount(inverse, sample_weight / sample_weight.max())
            weights = np.asarray(shares / shares.sum(), dtype=np.float64)
            if np.array_equal(sample_weight, np.rint(sample_weight)):
                counts = np.bincount(inverse, sample_weight).astype(np.int64)
        # a typical value goes first, exactly for what is near it: neither a column far from zero
        # nor a single point far out costs the others their digits. Halves cannot overflow.
        typical = np.partition(distinct, len(distinct) // 2, axis=0)[len(distinct) // 2] / 2
        centred = distinct / 2 - typical
        spread = float(np.abs(centred).max())
        if spread == 0.0:
            raise ValueError(
                "`X` has zero variance (all samples are equal): pass data with at least two "
                "different samples."
            )
        if not _SMALLEST < spread < _LARGEST:
            raise ValueError(
                f"`X` must differ by between {_SMALLEST:g} and {_LARGEST:g} somewhere, because "
                f"temperatures are squares, got a spread of {2 * spread:.3g}: pass X in other "
                "units."
            )
        centred /= spread  # neither squares nor sums can overflow or vanish from here on
        mean = weights @ centred
        centred -= mean
        again = weights @ centred  # the second pass removes the rounding of the first
        centred -= again
        mean = 2 * (typical + spread * (mean + again))
        spread *= 2
        size = float(np.sqrt(weights @ np.einsum("ij,ij->i", centred, centred)))
        centred /= size
        axes, variances = principal_axes(centred, weights)
        return cls(
            rows=np.ascontiguousarray(centred @ axes),
            weights=weights,
            counts=counts,
            inverse=inverse,
            mean=mean,
            axes=axes,
            scale=spread * size,
            variances=variances,
        )


def _distinct_rows(samples: Array) -> tuple[Array, NDArray[np.intp], NDArray[np.int64]]:
    """Distinct rows in order of first appearance, the row of each sample, and the counts."""
    _, first, inverse, counts = np.unique(
        samples, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return samples[first[order]], rank[inverse.reshape(-1)], counts[order]
