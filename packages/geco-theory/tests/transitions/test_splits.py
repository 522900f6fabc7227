import numpy as np
import pytest

from geco_theory.deterministic_annealing.solver import solve_equal
from geco_theory.deterministic_annealing.splitting import split_ratios
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.solution import Solution
from geco_theory.transitions.splits import MERGE, SPLIT, cool, locate_merges


def nothing(solution: Solution) -> None:
    del solution


@pytest.fixture(scope="module")
def pair() -> StandardData:
    return StandardData.from_samples(np.array([[-1.0], [1.0]]))


@pytest.fixture(scope="module")
def skewed() -> StandardData:
    """Most points together, a few far off: unequal parts."""
    rng = np.random.default_rng(0)
    return StandardData.from_samples(
        np.concatenate([0.3 * rng.normal(size=(45, 2)), [2.5, 0] + 0.3 * rng.normal(size=(5, 2))])
    )


def test_an_equal_pair_splits_and_merges_at_its_eigenvalue(pair: StandardData) -> None:
    solutions, splits = cool(pair, np.array([0.5, 0.8, 1.1]), 5, nothing)
    assert [s.mixture.size for s in solutions] == [1, 2, 2]
    (split,) = splits
    assert split.kind == SPLIT
    assert split.temperature == pytest.approx(1.0, rel=1e-8)
    assert split.continuous
    assert split.parts == pytest.approx((0.5, 0.5))
    both = Mixture(pair.rows.copy(), pair.weights.copy())
    low, high = solve_equal(pair, 0.5, both), solve_equal(pair, 1.2, both)
    (merge,) = locate_merges(pair, lambda t, m: solve_equal(pair, t, m), low, high, 5)
    assert merge.kind == MERGE
    assert merge.continuous
    assert merge.temperature == pytest.approx(1.0, rel=5e-3)


def test_the_first_split_is_at_the_stability_temperature(skewed: StandardData) -> None:
    top = float(skewed.variances[0])
    splits = cool(skewed, np.array([0.7 * top]), 1, nothing)[1]
    assert splits[0].temperature == pytest.approx(top, rel=1e-8)
    assert splits[0].mass == pytest.approx(1.0)
    assert abs(splits[0].direction[0]) > 0.99


def test_unequal_parts_merge_later_than_they_split(skewed: StandardData) -> None:
    top = float(skewed.variances[0])
    start = Mixture(skewed.rows.copy(), skewed.weights.copy())
    low = solve_equal(skewed, 0.8 * top, start)
    high = solve_equal(skewed, 3 * top, low.mixture)
    merges = locate_merges(skewed, lambda t, m: solve_equal(skewed, t, m), low, high, 10)
    assert merges[0].temperature > 1.01 * top
    assert not merges[0].continuous
    assert merges[0].jump > 0.1
    ratio = split_ratios(skewed, high.mixture, merges[0].temperature)[0].max()
    assert ratio == pytest.approx(top / merges[0].temperature)


def test_splits_follow_the_eigenvalue_condition(standard_blobs: StandardData) -> None:
    solutions, splits = cool(standard_blobs, np.geomspace(0.2, 0.7, 4), 3, nothing)
    assert len(splits) == 3
    temperatures = [split.temperature for split in splits]
    assert temperatures == sorted(temperatures, reverse=True)
    for split in splits:
        assert sum(split.parts) == pytest.approx(split.mass)
    for solution in solutions:
        ratios = split_ratios(standard_blobs, solution.mixture, solution.temperature)[0]
        assert ratios[solution.mixture.masses > 1.5 / 60].max() <= 1 + 1e-3
