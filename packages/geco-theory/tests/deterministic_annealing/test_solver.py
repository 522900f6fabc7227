import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_theory.deterministic_annealing.solver import solve_equal
from geco_theory.deterministic_annealing.splitting import split_ratios
from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.solution import Solution


def heat(data: StandardData, temperatures: np.ndarray) -> list[Solution]:
    mixture = Mixture(data.rows.copy(), data.weights.copy())
    found = []
    for temperature in temperatures:
        found.append(solve_equal(data, float(temperature), mixture))
        mixture = found[-1].mixture
    return found


@pytest.fixture(scope="module")
def temperatures() -> np.ndarray:
    return np.geomspace(0.005, 0.9, 30)


@pytest.fixture(scope="module")
def branch(standard_blobs: StandardData, temperatures: np.ndarray) -> list[Solution]:
    return heat(standard_blobs, temperatures)


def test_every_solution_is_a_fixed_point_of_whole_tiles(
    standard_blobs: StandardData, branch: list[Solution]
) -> None:
    for found in branch:
        assert found.converged
        state = moments(standard_blobs, found.mixture, found.temperature)
        assert np.abs(state.means - found.mixture.values).max() < 1e-6
        tiles = found.mixture.masses * 60
        np.testing.assert_allclose(tiles, np.rint(tiles), atol=1e-9)
        assert tiles.sum() == pytest.approx(60)


def test_no_group_is_left_unstable(standard_blobs: StandardData, branch: list[Solution]) -> None:
    for found in branch:
        ratios = split_ratios(standard_blobs, found.mixture, found.temperature)[0]
        assert ratios[found.mixture.masses * 60 > 1.5].max(initial=0.0) <= 1 + 1e-3


def test_free_energy_is_not_above_the_plain_iteration(
    standard_blobs: StandardData, branch: list[Solution], temperatures: np.ndarray
) -> None:
    mixture = Mixture(standard_blobs.rows.copy(), standard_blobs.weights.copy())
    for found, temperature in zip(branch, temperatures, strict=True):
        for _ in range(5000):
            state = moments(standard_blobs, mixture, temperature)
            move = np.abs(state.means - mixture.values).max()
            mixture = Mixture(state.means, mixture.masses)
            if move < 1e-7:
                break
        plain = moments(standard_blobs, mixture, temperature).free_energy
        assert found.free_energy <= plain + 1e-4


def test_splitting_is_what_keeps_it_low(standard_digits: StandardData) -> None:
    data = standard_digits
    mixture = Mixture(np.zeros((1, data.rows.shape[1])), np.ones(1))
    top = float(data.variances[0])
    tied = solve_equal(data, 0.9 * top, mixture, tied=True)
    split = solve_equal(data, 0.9 * top, mixture)
    assert tied.mixture.size == 1
    assert split.mixture.size > 1
    assert split.free_energy < tied.free_energy - 1e-4
    assert split.work["splits"] > 0


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.floats(-2.5, 0.5))
def test_plain_steps_cannot_lower_it(seed: int, power: float) -> None:
    data = StandardData.from_samples(np.random.default_rng(seed).normal(size=(15, 2)))
    start = Mixture(data.rows.copy(), data.weights.copy())
    found = solve_equal(data, 10.0**power, start)
    mixture = found.mixture
    for _ in range(50):
        mixture = Mixture(moments(data, mixture, 10.0**power).means, mixture.masses)
    later = moments(data, mixture, 10.0**power).free_energy
    assert later == pytest.approx(found.free_energy, abs=1e-10)


def test_tiles_that_meet_in_the_first_plain_steps_are_one_value() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]])
    tight = (centres[:, None] + 0.01 * rng.normal(size=(3, 10, 2))).reshape(30, 2)
    data = StandardData.from_samples(tight)
    found = heat(data, np.array([0.02, 0.1]))
    assert [f.mixture.size for f in found] == [3, 3]
    np.testing.assert_allclose(found[0].mixture.masses, 1 / 3)
