from collections import Counter

import numpy as np
import pytest

from geco_theory.free_energy.blahut_arimoto import moments, responsibilities
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.support import give_birth, reduce_support

TEMPERATURE = 0.2


@pytest.fixture
def line() -> StandardData:
    return StandardData.from_samples(np.random.default_rng(0).normal(size=(80, 1)))


def test_values_that_do_the_same_are_reduced_to_few_of_no_larger_free_energy(
    line: StandardData,
) -> None:
    before = Mixture(line.rows.copy(), line.weights.copy())
    after = reduce_support(line, before, TEMPERATURE, Counter())
    assert after.size <= 12  # the width of the data is about 12 of sqrt(T)
    assert after.masses.sum() == pytest.approx(1)
    energy = [moments(line, m, TEMPERATURE).free_energy for m in (before, after)]
    assert energy[1] <= energy[0]


def test_a_single_value_is_left_alone(line: StandardData) -> None:
    one = Mixture(np.zeros((1, 1)), np.ones(1))
    after = reduce_support(line, one, TEMPERATURE, Counter())
    np.testing.assert_allclose(after.values, one.values)
    np.testing.assert_allclose(after.masses, 1)


def test_a_value_that_comes_alone_takes_its_best_mass(line: StandardData) -> None:
    mixture = Mixture(np.array([[-0.8]]), np.ones(1))
    new = np.array([[0.9]])
    log_z = moments(line, mixture, TEMPERATURE).log_z
    born = give_birth(line, log_z, TEMPERATURE, mixture, new)
    assert born.masses.sum() == pytest.approx(1)
    # at the best mass, D = 1 at the new value: m = sum_i w_i q_i
    q, _ = responsibilities(line.rows, born, TEMPERATURE)
    assert line.weights @ q[:, 1] == pytest.approx(born.masses[1], rel=2e-3)


def test_likelihoods_that_overflow_give_a_mass(line: StandardData) -> None:
    mixture = Mixture(np.array([[-40.0]]), np.ones(1))
    new = np.array([[0.0], [1.0]])
    log_z = moments(line, mixture, 1e-3).log_z
    born = give_birth(line, log_z, 1e-3, mixture, new)
    assert np.all(np.isfinite(born.masses) & (born.masses > 0))
    assert born.masses.sum() == pytest.approx(1)
