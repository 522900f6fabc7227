from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from geco_theory.free_energy.blahut_arimoto import accelerate, moments, responsibilities
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture


def some_mixture(data: StandardData, k: int, seed: int = 0) -> Mixture:
    rng = np.random.default_rng(seed)
    chosen = data.rows[rng.choice(len(data.rows), k, replace=False)]
    return Mixture(chosen + 0.1 * rng.normal(size=chosen.shape), rng.dirichlet(np.ones(k)))


@pytest.mark.parametrize("block_rows", [1, 7, 128, 10_000])
@pytest.mark.parametrize("temperature", [1e-4, 0.05, 3.0])
def test_one_pass_is_equations_3_and_4(
    standard_digits: StandardData, block_rows: int, temperature: float
) -> None:
    data, mixture = standard_digits, some_mixture(standard_digits, 20)
    pairs = -np.square(data.rows[:, None] - mixture.values[None]).sum(axis=2) / (2 * temperature)
    log_z = logsumexp(pairs + np.log(mixture.masses), axis=1)
    q = np.exp(pairs + np.log(mixture.masses) - log_z[:, None])
    state = moments(data, mixture, temperature, block_rows)
    np.testing.assert_allclose(state.log_z, log_z, rtol=1e-11)
    np.testing.assert_allclose(state.mass, data.weights @ q, rtol=1e-8, atol=1e-15)
    means = (q * data.weights[:, None]).T @ data.rows / state.mass[:, None]
    heavy = state.mass > 1e-12
    np.testing.assert_allclose(state.means[heavy], means[heavy], rtol=1e-7, atol=1e-10)
    error = np.sum(data.weights[:, None] * q * (-2 * temperature * pairs))
    assert state.distortion == pytest.approx(error, rel=1e-9, abs=1e-12)
    assert state.free_energy == pytest.approx(-temperature * data.weights @ log_z, rel=1e-12)
    np.testing.assert_allclose(
        responsibilities(data.rows, mixture, temperature)[0], q, rtol=1e-7, atol=1e-14
    )


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 1), st.integers(1, 30), st.integers(0, 100), st.booleans())
def test_the_plain_step_never_raises_the_free_energy(
    standard_blobs: StandardData, power: float, k: int, seed: int, free: bool
) -> None:
    temperature, mixture = 10.0**power, some_mixture(standard_blobs, k, seed)
    before = np.inf
    for _ in range(20):
        state = moments(standard_blobs, mixture, temperature)
        assert state.free_energy <= before + 1e-13
        before = state.free_energy
        mass = np.maximum(state.mass, 1e-300)
        mixture = Mixture(state.means, mass if free else mixture.masses)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_pass_in_single_precision_on_threads_is_the_same(
    standard_digits: StandardData, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geco_theory.free_energy.parallel._LEAST_ROWS", 20)
    data, mixture = standard_digits, some_mixture(standard_digits, 20)
    exact = moments(data, mixture, 0.05)
    found = moments(data, mixture, 0.05, 16, single=True, workers=workers)
    assert found.free_energy == pytest.approx(exact.free_energy, rel=1e-6)
    assert found.distortion == pytest.approx(exact.distortion, rel=1e-4)
    np.testing.assert_allclose(found.log_z, exact.log_z, rtol=1e-5)
    np.testing.assert_allclose(found.mass, exact.mass, atol=1e-5)
    double = moments(data, mixture, 0.05, 16, workers=workers)
    assert double.free_energy == pytest.approx(exact.free_energy, rel=1e-13)


TEMPERATURE = 0.3


@pytest.fixture
def plane() -> StandardData:
    return StandardData.from_samples(np.random.default_rng(1).normal(size=(60, 2)))


def test_accelerated_steps_lower_the_free_energy_more_than_plain_ones(
    plane: StandardData,
) -> None:
    start = Mixture(plane.rows[:4], np.full(4, 0.25))
    plain, energies = start, []
    for _ in range(30):
        state = moments(plane, plain, TEMPERATURE)
        energies.append(state.free_energy)
        plain = Mixture(state.means, state.mass)
    work: Counter[str] = Counter()
    found = accelerate(plane, start, TEMPERATURE, 1e-14, 10, work)
    assert work["passes"] <= 1 + 10 * 4
    assert moments(plane, found, TEMPERATURE).free_energy <= energies[-1]
