from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.datasets import load_digits

from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.solver import fits, solve_free

if TYPE_CHECKING:
    from conftest import PlainAscent

ONE = np.ones(1)


def from_data(data: StandardData) -> Mixture:
    return Mixture(data.rows.copy(), data.weights.copy())


def from_one(data: StandardData) -> Mixture:
    return Mixture(np.zeros((1, data.rows.shape[1])), ONE)


@pytest.mark.parametrize("temperature", [0.2, 0.6, 0.95])
def test_two_points_have_a_closed_form(temperature: float) -> None:
    # values at +-m with m = tanh(m/T), by symmetry and Eq. (4)
    data = StandardData.from_samples(np.array([[-1.0], [1.0]]))
    m = brentq(lambda m: m - np.tanh(m / temperature), 1e-6, 1)
    found = solve_free(data, temperature, from_one(data))
    np.testing.assert_allclose(np.sort(found.mixture.values[:, 0]), [-m, m], rtol=1e-6)
    np.testing.assert_allclose(found.mixture.masses, 0.5, rtol=1e-6)
    both = 0.5 * sum(np.exp(-((1 - v) ** 2) / (2 * temperature)) for v in (m, -m))
    assert found.free_energy == pytest.approx(-temperature * np.log(both), rel=1e-12)
    assert found.converged


@pytest.mark.parametrize("temperature", [0.003, 0.03, 0.07, 0.12, 0.16])
def test_the_certificate_holds_for_an_ascent_of_other_code(
    digits: np.ndarray,
    standard_digits: StandardData,
    plain_ascent: "PlainAscent",
    temperature: float,
) -> None:
    data = standard_digits
    found = solve_free(data, temperature, from_data(data), tolerance=1e-9)
    assert found.converged
    values = data.to_user(found.mixture.values)
    unit = data.temperature_unit
    assert plain_ascent(digits, values, found.mixture.masses, temperature * unit) <= 2e-9
    assert found.rate == pytest.approx(
        (found.free_energy - found.distortion / 2) / temperature, abs=1e-12
    )


@pytest.mark.parametrize("temperature", [0.02, 0.05, 0.1, 0.15])
def test_heating_cooling_and_cold_starts_agree(
    standard_digits: StandardData, temperature: float
) -> None:
    data = standard_digits
    below = solve_free(data, 0.9 * temperature, from_data(data)).mixture
    above = solve_free(data, 1.1 * temperature, from_one(data)).mixture
    starts = (from_data(data), from_one(data), below, above)
    found = [solve_free(data, temperature, start) for start in starts]
    energies = [f.free_energy for f in found]
    assert np.ptp(energies) < 1e-12
    assert len({f.mixture.size for f in found}) == 1
    assert np.ptp([f.distortion for f in found]) < 1e-6


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.floats(-2, 0.3), st.sampled_from([1, 2, 5, 40]))
def test_plain_blahut_arimoto_never_finds_less(seed: int, power: float, d: int) -> None:
    rng = np.random.default_rng(seed)
    data = StandardData.from_samples(rng.normal(size=(20, d)) * rng.exponential(size=d))
    temperature = 10.0**power
    found = solve_free(data, temperature, from_data(data))
    assert found.converged
    mixture = from_data(data)
    for _ in range(300):
        state = moments(data, mixture, temperature)
        mixture = Mixture(state.means, np.maximum(state.mass, 1e-300))
    assert found.free_energy <= state.free_energy + temperature * found.certificate + 1e-13
    # a fixed point of Eqs. (3) and (4)
    state = moments(data, found.mixture, temperature)
    np.testing.assert_allclose(state.mass, found.mixture.masses, rtol=1e-6, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 1000),
    st.floats(-3, 0.3),
    st.integers(2, 100),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["normal", "uniform", "clusters", "integers", "cauchy"]),
)
def test_the_answer_does_not_depend_on_the_start(
    seed: int, power: float, n: int, d: int, kind: str
) -> None:
    # many values within sqrt(T) of each other: far more values at first than the optimum has
    rng = np.random.default_rng(seed)
    samples = {
        "normal": rng.normal(size=(n, d)),
        "uniform": rng.uniform(size=(n, d)),
        "clusters": rng.normal(size=(3, d))[rng.integers(0, 3, n)] + rng.normal(size=(n, d)) / 50,
        "integers": rng.integers(0, 9, size=(n, d)).astype(float),
        "cauchy": rng.standard_cauchy(size=(n, d)),
    }[kind]
    assume(np.ptp(samples, axis=0).any())
    data = StandardData.from_samples(samples)
    found = [solve_free(data, 10.0**power, start(data)) for start in (from_data, from_one)]
    assert all(f.converged for f in found)
    assert found[0].mixture.size == found[1].mixture.size
    # each lies at most T ln S above the optimum (D9), and ln S <= 1e-9 is what was asked for; near
    # a continuous transition F is so flat that two of them do differ by 1e-11
    assert abs(found[0].free_energy - found[1].free_energy) <= 10.0**power * 1e-9
    assert found[0].distortion == pytest.approx(found[1].distortion, abs=1e-5)


def test_without_memory_for_newton_the_certificate_says_the_gap(
    standard_digits: StandardData,
) -> None:
    data = standard_digits
    assert fits(data, 150, 1024)
    assert not fits(data, 150, 0.1)
    for temperature in (0.02, 0.05, 0.1, 0.16, 0.3):
        exact = solve_free(data, temperature, from_data(data))
        lean = solve_free(data, temperature, from_one(data), memory=0.1, tolerance=1e-6)
        # all data points are ascended from here, so the certificate bounds the gap (D9)
        assert lean.converged
        assert lean.certificate <= 1e-6
        gap = lean.free_energy - exact.free_energy
        assert -1e-9 <= gap <= temperature * lean.certificate + 1e-9
        assert abs(lean.mixture.size - exact.mixture.size) <= 1


def test_single_precision_and_threads_in_row_blocks_change_nothing_that_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # more rows than the part that is climbed first, few enough values that it is quick
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 4))
    rows = centres[rng.integers(0, 5, 2000)] + 0.3 * rng.normal(size=(2000, 4))
    data = StandardData.from_samples(rows)
    monkeypatch.setattr("geco_theory.free_energy.parallel._LEAST_ROWS", 500)
    found = []
    for single, workers in ((True, 3), (False, 1)):
        monkeypatch.setattr(
            "geco_theory.npmle.matrix_free.single_is_enough", lambda *_, s=single: s
        )
        found.append(
            solve_free(data, 0.1, from_one(data), tolerance=1e-4, memory=0.1, workers=workers)
        )
    assert all(f.converged and f.sampled for f in found)
    assert found[0].mixture.size == found[1].mixture.size
    assert abs(found[0].free_energy - found[1].free_energy) <= 0.1 * 1e-4
    for f in found:  # what is reported comes from a pass in double precision
        state = moments(data, f.mixture, 0.1)
        assert f.free_energy == pytest.approx(state.free_energy, rel=1e-12)
        assert f.distortion == pytest.approx(state.distortion, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("n", [600, 1797])
def test_every_temperature_of_digits_is_certified_by_other_code(
    n: int, plain_ascent: "PlainAscent"
) -> None:
    digits = load_digits().data[:n] / 16
    data = StandardData.from_samples(digits)
    unit = data.temperature_unit
    mixture = from_data(data)
    for temperature in np.geomspace(0.02, 1.3 * data.variances[0] * unit, 60):
        found = solve_free(data, temperature / unit, mixture, tolerance=1e-6)
        mixture = found.mixture
        assert found.converged
        if n == 600:
            values = data.to_user(mixture.values)
            assert plain_ascent(digits, values, mixture.masses, temperature) <= 1e-6
