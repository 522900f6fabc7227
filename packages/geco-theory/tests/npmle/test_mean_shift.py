import numpy as np
import pytest

from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.mean_shift import Landscape, distinct, newton_ascent


@pytest.fixture(scope="module")
def one() -> Mixture:
    return Mixture(np.zeros((1, 2)), np.ones(1))


def test_log_d_is_its_definition(standard_blobs: StandardData, one: Mixture) -> None:
    data, temperature = standard_blobs, 0.3
    log_z = moments(data, one, temperature).log_z
    points = np.random.default_rng(0).normal(size=(5, 2))
    gaps = np.square(data.rows[:, None] - points[None]).sum(axis=2)
    expected = np.log(data.weights @ np.exp(-gaps / (2 * temperature) - log_z[:, None]))
    np.testing.assert_allclose(Landscape(data, log_z, temperature).step(points)[0], expected)


def test_distinct_points_are_the_highest_of_their_neighbourhood() -> None:
    points = np.array([[0.0, 0.0], [0.0, 1e-4], [1.0, 0.0], [1.0, 1e-4]])
    np.testing.assert_array_equal(distinct(points, np.array([1.0, 2.0, 4.0, 3.0]), 0.01), [2, 1])
    np.testing.assert_array_equal(distinct(points[:1], np.array([0.0]), 0.1), [0])
    np.testing.assert_array_equal(distinct(np.zeros((3, 2)), np.arange(3.0), 0.1), [2])


def test_newton_steps_end_at_stationary_points_that_are_no_lower(
    standard_blobs: StandardData, one: Mixture
) -> None:
    landscape = Landscape(standard_blobs, moments(standard_blobs, one, 0.1).log_z, 0.1)
    starts = standard_blobs.rows
    ends = newton_ascent(landscape, starts, 1e-12)
    before, _ = landscape.step(starts)
    after, ahead = landscape.step(ends)
    assert (after >= before).all()
    assert np.abs(ahead - ends).max() < 1e-5  # a step of mean shift moves them no more
    # where plain mean shift ends, after very many steps, nothing is higher
    points = starts
    for _ in range(5000):
        points = landscape.step(points)[1]
    assert after.max() == pytest.approx(landscape.step(points)[0].max(), abs=1e-9)
