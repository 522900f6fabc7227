from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.joint_newton_cg import MovingMasses, descend
from geco_theory.npmle.solver import solve_free


def some(seed: int, n: int = 60, k: int = 6) -> tuple[StandardData, Mixture]:
    rng = np.random.default_rng(seed)
    data = StandardData.from_samples(rng.normal(size=(n, 3)) * [1.0, 0.6, 0.3])
    masses = rng.uniform(0.5, 1.5, k)
    return data, Mixture(0.7 * rng.normal(size=(k, 3)), masses / masses.sum())


def objective(data: StandardData, mixture: Mixture, temperature: float) -> float:
    """f = -sum w ln Z + sum pi."""
    energy = moments(data, mixture, temperature).free_energy / temperature
    return energy + float(mixture.masses.sum())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(-1.2, 0.5))
@example(1, -1.125)  # one value with hardly any posterior mass
def test_height_slope_and_curvature_agree(seed: int, power: float) -> None:
    data, mixture = some(seed)
    temperature = 10.0**power
    model = MovingMasses(data, mixture, temperature)
    assert model.height == pytest.approx(objective(data, mixture, temperature), rel=1e-12)
    v, w = np.random.default_rng(seed).normal(size=(2, 6, 4))
    step = 1e-5
    ends = [MovingMasses(data, model.moved(s * v), temperature) for s in (step, -step)]
    slope = (ends[0].height - ends[1].height) / (2 * step)
    assert slope == pytest.approx(-model.inner(model.pull, v), rel=1e-5, abs=1e-8)
    own = model.own_curvature()
    found = model.coupled(v)
    assert model.inner(w, found) == pytest.approx(model.inner(model.coupled(w), v), abs=1e-4)
    assert model.inner(v, found) >= -1e-5 * model.inner(v, v)
    # the preconditioner: its inverse is one, and it is positive
    np.testing.assert_allclose(own.over(own.times(v)), v, atol=1e-4)
    assert model.inner(v, own.times(v)) > 0
    assert model.inner(w, own.times(v)) == pytest.approx(model.inner(own.times(w), v), abs=1e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(-1.5, 0.0))
def test_at_the_optimum_the_curvature_is_that_of_the_function(seed: int, power: float) -> None:
    data, start = some(seed)
    temperature = 10.0**power * data.variances[0]
    mixture = solve_free(data, temperature, start, tolerance=1e-11).mixture
    model = MovingMasses(data, mixture, temperature)
    own = model.own_curvature()
    assume(float(own.sizes.min()) > 0.03)
    v = np.random.default_rng(seed).normal(size=(mixture.size, data.rows.shape[1] + 1))
    step = 1e-5
    ends = [MovingMasses(data, model.moved(s * v), temperature) for s in (step, -step)]
    # the gradient is -mass pull / T; its derivative along v is mass times the curvature / T
    change = -(ends[0].mass[:, None] * ends[0].pull - ends[1].mass[:, None] * ends[1].pull)
    found = model.coupled(v)
    found[:, :-1] += own.times(v)[:, :-1]
    np.testing.assert_allclose(model.mass[:, None] * found, change / (2 * step), atol=5e-5)


def test_values_that_are_still_are_left_out_and_the_product_is_that_of_the_others() -> None:
    data, mixture = some(1)
    whole = MovingMasses(data, mixture, 0.2)
    lengths = np.linalg.norm(whole.pull, axis=1) / np.sqrt(0.2)
    limit = float(np.median(lengths))
    part = MovingMasses(data, mixture, 0.2, still=limit)
    chosen = np.flatnonzero(lengths > limit)
    np.testing.assert_array_equal(part.moving, chosen)
    v = np.zeros((6, 4))
    v[chosen] = np.random.default_rng(0).normal(size=(len(chosen), 4))
    np.testing.assert_allclose(part.coupled(v[chosen]), whole.coupled(v)[chosen], atol=1e-5)
    for mine, all_of_them in zip(
        (part.own_curvature().times(v[chosen]), part.own_curvature().over(v[chosen])),
        (whole.own_curvature().times(v), whole.own_curvature().over(v)),
        strict=True,
    ):
        np.testing.assert_allclose(mine, all_of_them[chosen], atol=1e-4)
    moved = part.moved(0.01 * v[chosen])
    rest = np.setdiff1d(np.arange(6), chosen)
    np.testing.assert_array_equal(moved.values[rest], mixture.values[rest])
    np.testing.assert_array_equal(moved.masses[rest], mixture.masses[rest])


@pytest.mark.parametrize("memory", [1024.0, 0.0])
def test_few_steps_reach_the_optimum_with_the_number_of_values_given(memory: float) -> None:
    data, _ = some(2, n=300)
    temperature = 0.3 * data.variances[0]
    exact = solve_free(data, temperature, Mixture(data.rows.copy(), data.weights.copy()))
    rng = np.random.default_rng(0)
    values = exact.mixture.values + 0.1 * np.sqrt(temperature) * rng.normal(
        size=exact.mixture.values.shape
    )
    off = Mixture(values, exact.mixture.masses * rng.uniform(0.5, 2.0, exact.mixture.size))
    work: Counter[str] = Counter()
    found = descend(data, off.normalised(), temperature, 40, work, memory=memory, workers=2)
    assert found.masses.sum() == pytest.approx(1.0)
    gap = moments(data, found, temperature).free_energy - exact.free_energy
    assert -1e-12 <= gap <= 1e-6 * temperature
    assert work["newton"] < 40


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.floats(-1.5, 0.3), st.integers(1, 6))
def test_the_free_energy_never_rises(seed: int, power: float, steps: int) -> None:
    data, mixture = some(seed)
    temperature = 10.0**power
    after = descend(data, mixture, temperature, steps, Counter())
    energies = [moments(data, m, temperature).free_energy for m in (mixture, after)]
    # normalising the masses at the end lowers f further, up to rounding
    assert energies[1] <= energies[0] + 1e-13


def test_where_all_are_still_nothing_moves() -> None:
    data, mixture = some(4)
    work: Counter[str] = Counter()
    after = descend(data, mixture, 0.2, 5, work, still=100.0)
    np.testing.assert_allclose(after.values, mixture.values)
    assert work["newton"] == 0


def test_a_value_that_no_data_point_is_near_to_goes() -> None:
    data, mixture = some(5)
    values = np.concatenate([mixture.values, [[90.0, 0.0, 0.0]]])
    lost = Mixture(values, np.concatenate([0.9 * mixture.masses, [0.1]]))
    assert moments(data, lost, 0.2).mass[-1] == 0.0
    after = descend(data, lost, 0.2, 60, Counter())
    assert np.all(np.isfinite(after.values))
    assert after.masses.sum() == pytest.approx(1.0)
    gone = np.linalg.norm(after.values, axis=1) > 50
    assert after.masses[gone].sum() < 1e-6
