"""Decoder values and their masses: the state that every solver moves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geco_theory._typing import Array

LEAST_MASS = 1e-10  # of a value that is kept while masses move
_BLOCK = 2**22  # numbers in one block of pairs


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

    def sorted_by_mass(self) -> "Mixture":
        """Heaviest value first, ties in order of the coordinates: the order that is reported."""
        keys = (*self.values.T[::-1], -np.round(self.masses, 12))
        return self.select(np.lexsort(keys))


def _with_neighbours(values: Array, distance: float) -> NDArray[np.intp]:
    """Values that may be closer than `distance` to another one: all that are, at least."""
    squares = np.einsum("ij,ij->i", values, values)
    limit = distance**2 + 1e-13 * float(squares.max())  # the expanded square is inexact
    block = max(1, _BLOCK // len(values))
    found = []
    for begin in range(0, len(values), block):
        gaps = values[begin : begin + block] @ (-2.0 * values.T)
        gaps += squares
        rows = np.arange(len(gaps))
        gaps[rows, begin + rows] = np.inf
        found.append(gaps.min(axis=1) + squares[begin : begin + block] < limit)
    return np.flatnonzero(np.concatenate(found))


def merge_coincident(mixture: Mixture, distance: float) -> Mixture:
    """Values closer than `distance` to a heavier one become one value at their mean."""
    values, masses = mixture.values, mixture.masses
    close = _with_neighbours(values, distance)
    free = close[np.argsort(-masses[close], kind="stable")]
    group = np.arange(len(masses))
    while len(free):
        leader = free[0]
        gaps = values[free] - values[leader]
        near = np.einsum("ij,ij->i", gaps, gaps) < distance**2
        near[0] = True
        group[free[near]] = leader
        free = free[~near]
    leaders, index = np.unique(group, return_inverse=True)
    if len(leaders) == len(masses):
        return mixture
    total = np.bincount(index, masses)
    mean = np.stack([np.bincount(index, masses * v) for v in values.T], axis=1)
    return Mixture(mean / total[:, None], np.asarray(total, dtype=np.float64))
