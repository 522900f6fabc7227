r"""Data as the solvers see them: distinct rows, centred, rotated to their rank, of unit size.

The free energy depends on the data only through differences, so a shift and a rotation change
nothing, and lengths can be divided by :math:`s = \\sqrt{\\operatorname{mean} |x|^2}` if the
temperature is divided by :math:`s^2`. Equal rows become one row with a larger weight.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from geco_theory._typing import Array
from geco_theory.linalg import principal_axes


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
    def from_samples(cls, samples: Array) -> "StandardData":
        """Bring samples (n_samples, d) to standard coordinates.

        Raises:
            ValueError: If the samples do not vary.
        """
        distinct, inverse, counts = _distinct_rows(samples)
        weights = counts / counts.sum()
        largest = float(np.abs(distinct).max())
        unit = largest if largest > 0 else 1.0
        scaled = distinct / unit  # neither squares nor sums can overflow or vanish from here on
        mean = weights @ scaled
        centred = scaled - mean
        centred -= weights @ centred  # the second pass removes the rounding of the first
        spread = float(np.abs(centred).max())
        if spread <= 64 * np.finfo(np.float64).eps:
            raise ValueError(
                "`X` has zero variance (all samples are equal): pass data with at least two "
                "different samples."
            )
        centred /= spread
        size = float(np.sqrt(weights @ np.einsum("ij,ij->i", centred, centred)))
        centred /= size
        axes, variances = principal_axes(centred, weights)
        return cls(
            rows=np.ascontiguousarray(centred @ axes),
            weights=weights,
            counts=counts,
            inverse=inverse,
            mean=mean * unit,
            axes=axes,
            scale=unit * spread * size,
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
