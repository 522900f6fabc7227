"""Certificates on data of many kinds, against ascents that share no code with the solver.

Heating, cooling and cold starts are three different ways to the one optimum (D9): they must agree.
The ascents are written from D9 alone, with differences that are not expanded, and begin where the
solver's own do not: at means of random subsets of the data and halfway between values.
"""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from geco_theory import PhaseTransitions

KINDS = (
    "normal",
    "heavy tails",
    "blobs",
    "duplicates",
    "outlier",
    "integers",
    "low rank",
    "simplex",
    "sphere",
    "skewed",
    "line",
    "two groups",
    "binary",
)
SHARES = (0.03, 0.1, 0.3, 0.6, 0.95, 1.05)  # of the top transition
COLD = (1, 4)  # where a start at one value is tried as well
QUICK = (0, 1, 2, 3, 4, 5, 7, 8, 18, 20, 24, 37)


def dataset(seed: int) -> np.ndarray:
    """2 to 400 samples of 1 to 5,000 features; the scale runs over twelve orders."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    n = int(np.exp(rng.uniform(np.log(2), np.log(400))))
    d = int(np.exp(rng.uniform(0, np.log(5000))))
    n = min(n, max(2, 200_000 // d))
    X = rng.normal(size=(n, d))
    if kind == "heavy tails":
        X = rng.standard_t(1.5, size=(n, d))
    elif kind == "blobs":
        centres = rng.normal(size=(rng.integers(1, 6), d)) * rng.uniform(1, 10)
        X += centres[rng.integers(len(centres), size=n)]
    elif kind == "duplicates":
        X = X[rng.integers(max(2, n // 3), size=n)]
    elif kind == "outlier":
        X[0] += 10.0 ** rng.integers(1, 10)
    elif kind == "integers":
        X = rng.integers(0, rng.integers(2, 6), size=(n, d)).astype(float)
    elif kind == "low rank":
        rank = int(rng.integers(1, 4))
        X = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    elif kind == "simplex":
        X = np.eye(n)
    elif kind == "sphere":
        X /= np.linalg.norm(X, axis=1)[:, None]
    elif kind == "skewed":
        X = rng.exponential(size=(n, d)) ** 2
    elif kind == "line":
        X = rng.uniform(size=(n, 1))
    elif kind == "two groups":
        X[: n // 2] += rng.uniform(0, 3)
    elif kind == "binary":
        X = (rng.random((n, d)) < rng.uniform(0.1, 0.6)).astype(float)
    X = X * 10.0 ** rng.integers(-6, 7)
    if (X[0] == X).all():
        X[0] += 1.0
    return X


def log_supremum(
    X: np.ndarray, values: np.ndarray, masses: np.ndarray, temperature: float, seed: int
) -> float:
    rng = np.random.default_rng(seed)
    n, k = len(X), len(values)

    def log_pairs(points: np.ndarray) -> np.ndarray:
        return -cdist(X, points, "sqeuclidean") / (2 * temperature)

    log_z = logsumexp(log_pairs(values) + np.log(masses), axis=1)
    starts = [X, values, X.mean(axis=0)[None]]
    for size in (2, 3, 5, 10, 20, 50):
        if size < n:
            chosen = [rng.choice(n, size, replace=False) for _ in range(12)]
            starts.append(np.array([X[rows].mean(axis=0) for rows in chosen]))
    if k > 1:
        chosen = [rng.choice(k, 2, replace=False) for _ in range(12)]
        starts.append(np.array([values[rows].mean(axis=0) for rows in chosen]))
    points = np.concatenate(starts)
    height = np.full(len(points), -np.inf)
    best = -np.inf
    for _ in range(300):
        terms = log_pairs(points) - log_z[:, None] - np.log(n)
        new = logsumexp(terms, axis=0)
        best = max(best, float(new.max()))
        climbing = new - height > 1e-11
        if not climbing.any():
            break
        points = (np.exp(terms - new).T @ X)[climbing]
        height = new[climbing]
    return best


def check(seed: int) -> None:
    X = dataset(seed)
    common = {"n_transitions": 0, "temperatures": 2}
    top = PhaseTransitions(direction="cooling", **common).fit(X).critical_temperatures_[0]
    temperatures = top * np.array(SHARES)
    common["temperatures"] = temperatures
    found = {d: PhaseTransitions(direction=d, **common).fit(X) for d in ("heating", "cooling")}
    for i, T in enumerate(temperatures):
        points = [found[d].path_.isel(temperature=i) for d in found]
        if i in COLD:
            cold = PhaseTransitions(direction="cooling", n_transitions=0, temperatures=[T]).fit(X)
            points.append(cold.path_.isel(temperature=0))
        certified = [p for p in points if bool(p.converged)]
        energies = [float(p.free_energy) for p in certified]
        if energies:
            assert max(energies) - min(energies) <= 1e-8 * T, (seed, T)
        if SHARES[i] > 1.0:
            assert all(int(p.n_clusters) == 1 for p in points), (seed, T)
        for direction, analysis in found.items():
            values = analysis.decoder_values(float(T))
            highest = log_supremum(X, values["value"].values, values["mass"].values, T, seed)
            reported = float(analysis.path_["certificate"][i])
            assert highest <= reported + 1e-9, (seed, T, direction)


@pytest.mark.parametrize("seed", QUICK)
def test_no_certificate_is_false(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(5))
def test_no_certificate_of_five_hundred_is_false(hundred: int) -> None:
    for seed in range(100 * hundred, 100 * (hundred + 1)):
        check(seed)


@pytest.mark.parametrize(
    "X",
    [
        np.eye(50),
        np.random.default_rng(0).normal(size=(100, 1000)),
        np.concatenate([np.zeros((30, 1)), np.full((30, 1), 0.05)])
        + np.random.default_rng(1).normal(size=(60, 2000)),
    ],
    ids=["simplex", "normal", "two groups"],
)
def test_heating_from_one_value_per_sample_ends_at_one_value(X: np.ndarray) -> None:
    """Where data are nearly equidistant no climb from a sample leads to the mean."""
    cooling = PhaseTransitions(direction="cooling", n_transitions=0, temperatures=2).fit(X)
    top = cooling.critical_temperatures_[0]
    heating = PhaseTransitions(
        direction="heating", n_transitions=0, temperatures=[0.95 * top, 1.05 * top]
    ).fit(X)
    assert heating.n_clusters(1.05 * top) == 1
    # what one value costs is known in closed form
    variance = np.var(X, axis=0).sum()
    assert float(heating.path_["free_energy"][1]) == pytest.approx(variance / 2, rel=1e-12)
    below = PhaseTransitions(direction="cooling", n_transitions=0, temperatures=[0.95 * top]).fit(
        X
    )
    difference = float(heating.path_["free_energy"][0] - below.path_["free_energy"][0])
    assert abs(difference) <= 1e-8 * 0.95 * top


@pytest.mark.parametrize("far", [1e6, 1e7, 1e8, 1e9])
def test_a_far_point_takes_one_value_and_changes_nothing_else(far: float) -> None:
    """F of n points and one far away is known: the far one costs its surprise."""
    X = np.random.default_rng(3).normal(size=(60, 2)) * [1.0, 3.0]
    n, T = len(X), np.array([0.5, 2.0, 5.0])
    alone = PhaseTransitions(temperatures=T, n_transitions=0).fit(X).path_
    both = PhaseTransitions(temperatures=T, n_transitions=0).fit(np.vstack([X, [far, far]])).path_
    share = n / (n + 1)
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    expected = share * alone["free_energy"].values + T * entropy
    error = np.abs(both["free_energy"].values - expected) / T
    assert (error <= both["certificate"].values + 1e-9).all()
    np.testing.assert_array_equal(both["converged"].values, both["certificate"].values <= 1e-9)
