"""Decoder values and their masses: the state that every solver moves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """A distribution of decoder values with finitely many values.

    Args:
        values: (k, r) the decoder values.
        masses: (k,) their prior masses; they sum to 1.
    """

    values: Array
    masses: Array

    @property
    def size(self) -> int:
        """The number of decoder values, k."""
        return len(self.masses)

    def normalised(self) -> "Mixture":
        """The same values with masses that sum to 1."""
        return Mixture(self.values, self.masses / self.masses.sum())

    def select(self, kept: NDArray[np.bool_] | NDArray[np.intp]) -> "Mixture":
        """Only the chosen values, their masses unchanged."""
        return Mixture(self.values[kept], self.masses[kept])

    def with_values(self, values: Array, mass: float) -> "Mixture":
        """Further values that share `mass` equally; the others give it up in proportion."""
        share = np.full(len(values), mass / len(values))
        return Mixture(
            np.concatenate([self.values, values]),
            np.concatenate([self.masses * (1.0 - mass), share]),
        )

    def sorted_by_mass(self) -> "Mixture":
        """Heaviest value first, ties in order of the coordinates: the order that is reported."""
        keys = (*self.values.T[::-1], -np.round(self.masses, 12))
        return self.select(np.lexsort(keys))


def _any_nearer(values: Array, distance: float) -> bool:
    """Whether two values may be closer than `distance` (never wrong when it says no)."""
    if len(values) < 2:
        return False
    squares = np.einsum("ij,ij->i", values, values)
    gaps = values @ (-2.0 * values.T)
    gaps += squares
    gaps += squares[:, None]
    np.fill_diagonal(gaps, np.inf)
    rounding = 1e-13 * float(squares.max())
    return bool(gaps.min() < distance**2 + rounding)


def merge_coincident(mixture: Mixture, distance: float) -> Mixture:
    """Values closer than `distance` to a heavier one become one value at their mean."""
    values, masses = mixture.values, mixture.masses
    if not _any_nearer(values, distance):
        return mixture
    order = np.argsort(-masses, kind="stable")
    squares = np.einsum("ij,ij->i", values, values)
    group = np.full(len(masses), -1)
    for leader in order:
        if group[leader] >= 0:
            continue
        free = np.flatnonzero(group < 0)
        gaps = squares[free] + squares[leader] - 2.0 * (values[free] @ values[leader])
        near = free[gaps < distance**2]
        if len(near) > 1:  # the expanded square is inexact for near points: measure again
            near = near[np.linalg.norm(values[near] - values[leader], axis=1) < distance]
        group[near] = leader
        group[leader] = leader
    leaders, index = np.unique(group, return_inverse=True)
    if len(leaders) == len(masses):
        return mixture
    total = np.bincount(index, masses)
    mean = np.stack([np.bincount(index, masses * v) for v in values.T], axis=1)
    return Mixture(mean / total[:, None], np.asarray(total, dtype=np.float64))
