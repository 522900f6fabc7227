import numpy as np
import pytest

from geco_theory.certificate import Landscape, ascend, births, climb_to_maximum, distinct
from geco_theory.kernels import moments
from geco_theory.mixtures import Mixture
from geco_theory.standard_data import StandardData


@pytest.fixture(scope="module")
def one() -> Mixture:
    return Mixture(np.zeros((1, 2)), np.ones(1))


def grid_supremum(data: StandardData, log_z: np.ndarray, temperature: float) -> float:
    axis = np.linspace(-3, 3, 601)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return float(Landscape(data, log_z, temperature).step(points)[0].max())


@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.4])
def test_the_supremum_is_that_of_a_fine_grid(
    standard_blobs: StandardData, one: Mixture, temperature: float
) -> None:
    log_z = moments(standard_blobs, one, temperature).log_z
    found = ascend(standard_blobs, log_z, temperature, standard_blobs.rows, known=one.values)
    expected = grid_supremum(standard_blobs, log_z, temperature)
    assert expected <= found.log_supremum + 1e-12
    assert found.log_supremum == pytest.approx(expected, rel=1e-2, abs=2e-3)


def test_log_d_is_its_definition(standard_blobs: StandardData, one: Mixture) -> None:
    data, temperature = standard_blobs, 0.3
    log_z = moments(data, one, temperature).log_z
    points = np.random.default_rng(0).normal(size=(5, 2))
    gaps = np.square(data.rows[:, None] - points[None]).sum(axis=2)
    expected = np.log(data.weights @ np.exp(-gaps / (2 * temperature) - log_z[:, None]))
    np.testing.assert_allclose(Landscape(data, log_z, temperature).step(points)[0], expected)


def test_maxima_are_stationary(standard_blobs: StandardData, one: Mixture) -> None:
    log_z = moments(standard_blobs, one, 0.02).log_z
    found = ascend(standard_blobs, log_z, 0.02, standard_blobs.rows)
    ahead = Landscape(standard_blobs, log_z, 0.02).step(found.points)[1]
    assert np.abs(ahead - found.points).max() < 1e-3
    assert len(found.points) > 1
    point, height = climb_to_maximum(standard_blobs, one, 0.02, found.points[0] + 0.01)
    np.testing.assert_allclose(point, found.points[0], atol=1e-3)
    assert height >= found.log_supremum - 1e-9


def test_no_value_is_born_where_one_is(standard_blobs: StandardData, one: Mixture) -> None:
    log_z = moments(standard_blobs, one, 0.02).log_z
    found = ascend(standard_blobs, log_z, 0.02, standard_blobs.rows)
    new = births(found, one, 0.02, 1e-6)
    assert len(new) > 0
    assert len(births(found, Mixture(found.points, np.ones(len(found.points))), 0.02, 1e-6)) == 0


def test_distinct_points_are_the_highest_of_their_neighbourhood() -> None:
    points = np.array([[0.0, 0.0], [0.0, 1e-4], [1.0, 0.0], [1.0, 1e-4]])
    np.testing.assert_array_equal(distinct(points, np.array([1.0, 2.0, 4.0, 3.0]), 0.01), [2, 1])
    np.testing.assert_array_equal(distinct(points[:1], np.array([0.0]), 0.1), [0])
    np.testing.assert_array_equal(distinct(np.zeros((3, 2)), np.arange(3.0), 0.1), [2])
