"""Shared data and an ascent that has no code in common with the solver."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.datasets import load_digits, make_blobs

from geco_theory.free_energy.data import StandardData

PlainAscent = Callable[[np.ndarray, np.ndarray, np.ndarray, float], float]


@pytest.fixture(scope="session")
def blobs() -> np.ndarray:
    return np.asarray(make_blobs(60, random_state=0)[0])


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """150 digits, in [0, 1]."""
    return np.asarray(load_digits().data[:150] / 16)


@pytest.fixture(scope="session")
def standard_blobs(blobs: np.ndarray) -> StandardData:
    return StandardData.from_samples(blobs)


@pytest.fixture(scope="session")
def standard_digits(digits: np.ndarray) -> StandardData:
    return StandardData.from_samples(digits)


@pytest.fixture(scope="session")
def plain_ascent() -> PlainAscent:
    """ln S of a mixture by plain ascent from every data point, in the user's units.

    Written from D9 alone: no extrapolation, no merging of climbs, no pruning.
    """

    def log_supremum(
        samples: np.ndarray, values: np.ndarray, masses: np.ndarray, temperature: float
    ) -> float:
        def pairs(points: np.ndarray) -> np.ndarray:
            gaps = np.square(samples).sum(axis=1)[:, None] + np.square(points).sum(axis=1)
            return -(gaps - 2 * samples @ points.T) / (2 * temperature)

        log_z = logsumexp(pairs(values) + np.log(masses), axis=1)
        points = samples.copy()
        height = np.full(len(points), -np.inf)
        for _ in range(20_000):
            terms = pairs(points) - log_z[:, None] - np.log(len(samples))
            new = logsumexp(terms, axis=0)
            weights = np.exp(terms - new)
            points = weights.T @ samples
            if np.max(new - height) < 1e-13:
                break
            height = new
        return float(new.max())

    return log_supremum
