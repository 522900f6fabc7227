from collections import Counter

import numpy as np
import pytest
from scipy.optimize import minimize

from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.weights import solve_masses

TEMPERATURE = 0.3


@pytest.fixture
def plane() -> StandardData:
    return StandardData.from_samples(np.random.default_rng(1).normal(size=(60, 2)))


def test_newton_steps_on_the_masses_reach_their_minimum(plane: StandardData) -> None:
    values = plane.rows[:5]
    mixture = Mixture(values, np.full(5, 0.2))
    energies = []
    for _ in range(8):
        energies.append(moments(plane, mixture, TEMPERATURE).free_energy)
        mixture = solve_masses(plane, mixture, TEMPERATURE, Counter())
    assert np.all(np.diff(energies) <= 1e-15)

    def energy(logits: np.ndarray) -> float:
        masses = np.exp(logits - logits.max())
        trial = Mixture(values, masses / masses.sum())
        return moments(plane, trial, TEMPERATURE).free_energy

    other = minimize(energy, np.zeros(5), method="BFGS", options={"gtol": 1e-8})
    assert energies[-1] == pytest.approx(other.fun, abs=1e-7)
    assert energies[-1] <= other.fun + 1e-10


def test_both_ways_of_solving_a_step_end_in_the_same_masses(plane: StandardData) -> None:
    start = Mixture(plane.rows[:5], np.full(5, 0.2))
    gram = solve_masses(plane, start, TEMPERATURE, Counter(), steps=20)
    empty = solve_masses(plane, start, TEMPERATURE, Counter(), steps=20, from_empty=True)
    assert moments(plane, gram, TEMPERATURE).free_energy == pytest.approx(
        moments(plane, empty, TEMPERATURE).free_energy, abs=1e-9
    )


def test_of_values_that_do_the_same_the_empty_set_keeps_one(plane: StandardData) -> None:
    twice = Mixture(np.repeat(plane.rows[:3], 2, axis=0), np.full(6, 1 / 6))
    found = solve_masses(plane, twice, TEMPERATURE, Counter(), steps=6, from_empty=True)
    assert found.size == 3
