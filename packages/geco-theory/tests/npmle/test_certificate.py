import numpy as np
import pytest

from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.certificate import ascend, births
from geco_theory.npmle.mean_shift import Landscape, climb_to_maximum


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
