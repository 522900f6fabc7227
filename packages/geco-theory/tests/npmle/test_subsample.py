import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.certificate import ascend
from geco_theory.npmle.mean_shift import Landscape
from geco_theory.npmle.solver import solve_free
from geco_theory.npmle.subsample import (
    climbing_starts,
    stratified_part,
    uniform_sample,
    worst_explained,
)
from geco_theory.phase_transitions import PhaseTransitions


def with_outliers(n: int, outliers: int, distance: float, d: int = 6) -> np.ndarray:
    """A Gaussian cloud and single points around it, in random order."""
    rng = np.random.default_rng(3)
    far = rng.normal(size=(outliers, d))
    far *= distance / np.linalg.norm(far, axis=1)[:, None]
    return rng.permutation(np.concatenate([rng.normal(size=(n, d)), far]))


def one_value(data: StandardData) -> Mixture:
    return Mixture(np.zeros((1, data.rows.shape[1])), np.ones(1))


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 60), st.integers(1, 80), st.integers(0, 1000))
def test_the_worst_explained_rows_have_the_largest_weight_over_z(
    n: int, number: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    data = StandardData.from_samples(rng.normal(size=(n, 2)))
    log_z = rng.normal(size=n)
    chosen = worst_explained(data, log_z, number)
    height = np.log(data.weights) - log_z
    np.testing.assert_allclose(height[chosen], np.sort(height)[::-1][: min(number, n)])


def test_weight_over_z_is_a_lower_bound_of_d_at_the_row() -> None:
    data = StandardData.from_samples(with_outliers(200, 5, 9.0))
    log_z = moments(data, one_value(data), 0.2).log_z
    log_d, _ = Landscape(data, log_z, 0.2).step(data.rows)
    assert np.all(log_d >= np.log(data.weights) - log_z - 1e-12)


def test_samples_repeat_themselves_and_are_all_rows_where_there_are_few() -> None:
    data = StandardData.from_samples(with_outliers(300, 4, 9.0))
    np.testing.assert_array_equal(uniform_sample(data, 40), uniform_sample(data, 40))
    assert len(np.unique(uniform_sample(data, 40))) == 40
    np.testing.assert_array_equal(uniform_sample(data, 1000), np.arange(304))
    assert climbing_starts(data, np.zeros(304), 1000) is data.rows
    assert len(climbing_starts(data, -data.squares, 40)) <= 40


def test_a_part_stands_for_all_data() -> None:
    data = StandardData.from_samples(with_outliers(5000, 8, 12.0))
    log_z = moments(data, one_value(data), 0.3).log_z
    part, part_log_z = stratified_part(data, log_z, 500, 2000)
    assert len(part.rows) == len(part_log_z) == 2500
    assert part.weights.sum() == pytest.approx(1.0, rel=1e-12)
    # the worst explained are in it as they are, so D beside an outlier is exact there
    outliers = data.rows[worst_explained(data, log_z, 8)]
    whole, _ = Landscape(data, log_z, 0.3).step(outliers)
    sampled, _ = Landscape(part, part_log_z, 0.3).step(outliers)
    np.testing.assert_allclose(sampled, whole, atol=1e-3)


def test_every_outlier_of_large_data_gets_its_value() -> None:
    # a uniform sample of 1,024 points would hold two of the twelve
    data = StandardData.from_samples(with_outliers(6000, 12, 14.0))
    temperature = 0.8 * data.variances[0]
    solution = solve_free(data, temperature, one_value(data), tolerance=1e-4, memory=300)
    assert solution.converged
    assert solution.sampled
    outliers = data.rows[np.argsort(-data.squares)[:12]]
    gaps = np.linalg.norm(outliers[:, None] - solution.mixture.values, axis=2).min(axis=1)
    assert np.all(gaps < np.sqrt(temperature))
    # checked from all data points
    log_z = moments(data, solution.mixture, temperature).log_z
    found = ascend(data, log_z, temperature, data.rows, known=solution.mixture.values)
    assert found.log_supremum <= 1e-4


def test_the_top_transition_is_that_of_a_single_far_point_among_many() -> None:
    X = with_outliers(9000, 1, 40.0, d=3)
    settings = {"temperatures": [5.0, 50.0], "n_transitions": 0, "tolerance": 1e-4}
    found = PhaseTransitions(**settings).fit(X)
    data = StandardData.from_samples(X)
    farthest = int(np.argmax(data.squares))
    top = found.critical_temperatures_[0] / data.temperature_unit
    # D9's condition of one value at the outlier: above the root its terms sum to less than 1
    for factor, sign in ((1.001, -1), (0.999, 1)):
        t = factor * top
        log_d, _ = Landscape(data, -data.squares / (2 * t), t).step(data.rows[farthest][None])
        assert np.sign(log_d[0]) == sign
    assert top > 1.5 * data.variances[0]
