import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_theory.deterministic_annealing.solver import solve_equal
from geco_theory.free_energy import newton_cg as fixed_masses
from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.newton_cg import FixedMasses, downward_direction, newton_step


def some(seed: int, n: int = 40, k: int = 7, r: int = 3) -> tuple[StandardData, Mixture]:
    rng = np.random.default_rng(seed)
    data = StandardData.from_samples(rng.normal(size=(n, r)) * [1.0, 0.5, 0.2])
    masses = rng.uniform(0.5, 1.5, k)
    return data, Mixture(0.7 * rng.normal(size=(k, r)), masses / masses.sum())


def moved(mixture: Mixture, move: np.ndarray) -> Mixture:
    return Mixture(mixture.values + move, mixture.masses)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.floats(-1.5, 0.5))
def test_height_slope_and_curvature_agree(seed: int, power: float) -> None:
    data, mixture = some(seed)
    temperature = 10.0**power
    model = FixedMasses(data, mixture, temperature)
    assert model.height == pytest.approx(
        moments(data, mixture, temperature).free_energy / temperature
    )
    v, w = np.random.default_rng(seed).normal(size=(2, 7, 3))
    step = 1e-5
    up, down = (FixedMasses(data, moved(mixture, s * v), temperature) for s in (step, -step))
    slope = (up.height - down.height) / (2 * step)
    assert slope == pytest.approx(-model.inner(model.pull, v), rel=1e-5, abs=1e-8)
    # the gradient is -mass pull / T; its derivative along v is mass (I - J) v / T
    change = -(up.mass[:, None] * up.pull - down.mass[:, None] * down.pull) / (2 * step)
    found = model.curved(v)
    np.testing.assert_allclose(model.mass[:, None] * found, change, atol=2e-5)
    assert model.inner(w, found) == pytest.approx(model.inner(model.curved(w), v), abs=1e-4)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data, mixture = some(0)
    whole = FixedMasses(data, mixture, 0.3)
    monkeypatch.setattr(fixed_masses, "_BLOCK", 1)
    blocks = FixedMasses(data, mixture, 0.3, memory=0.0)
    assert len(blocks._blocks) == 2
    assert not blocks._q
    assert blocks.height == pytest.approx(whole.height, rel=1e-14)
    np.testing.assert_allclose(blocks.pull, whole.pull, atol=1e-14)
    v = np.random.default_rng(0).normal(size=(7, 3))
    np.testing.assert_allclose(blocks.curved(v), whole.curved(v), atol=1e-6)


def test_axes_that_hold_hardly_any_variance_are_left_out_and_data_far_out_taken_exactly() -> None:
    rng = np.random.default_rng(0)
    data = StandardData.from_samples(rng.normal(size=(50, 4)) * [1.0, 1.0, 1e-3, 1e-3])
    mixture = Mixture(data.rows[:5].copy(), np.full(5, 0.2))
    assert FixedMasses(data, mixture, 0.1).axes == 2
    assert FixedMasses(data, mixture, 0.1).dtype is np.float32
    cold = FixedMasses(data, mixture, 1e-4)
    assert cold.axes == 4
    assert cold.dtype is np.float64


def test_newton_steps_solve_and_their_length_is_the_error() -> None:
    data, start = some(1)
    solved = solve_equal(data, 0.15, start, tolerance=1e-11).mixture
    order = np.lexsort(solved.values.T)
    shaken = moved(solved, 1e-4 * np.random.default_rng(0).normal(size=solved.values.shape))
    model = FixedMasses(data, shaken, 0.15)
    step = newton_step(model, 1.0, 1e-6, 1.0)
    assert not step.bounded
    after = moved(shaken, step.move)
    before = np.abs(shaken.values - solved.values).max()
    assert np.abs(after.values - solved.values)[order].max() < 0.01 * before
    assert step.longest == pytest.approx(
        np.linalg.norm(shaken.values - solved.values, axis=1).max(), rel=0.02
    )
    ahead = FixedMasses(data, after, 0.15)
    assert model.height - ahead.height == pytest.approx(step.fall, rel=0.01)


def test_no_value_moves_farther_than_the_radius() -> None:
    data, mixture = some(2)
    step = newton_step(FixedMasses(data, mixture, 0.05), 0.02, 0.1, 1e-6)
    assert step.bounded
    assert step.longest == pytest.approx(0.02)
    assert step.fall > 0


def test_a_saddle_is_told_from_a_minimum() -> None:
    # two tiles for four corners: held on the short axis of the rectangle they end at a saddle
    corners = np.array([[-2.0, -1.0], [-2.0, 1.0], [2.0, -1.0], [2.0, 1.0]])
    data = StandardData.from_samples(corners)
    temperature = 0.17
    half = np.full(2, 0.5)
    found = []
    for axis in (0, 1):
        values = np.zeros((2, 2))
        values[:, axis] = [-0.5, 0.5]
        for _ in range(500):
            values = moments(data, Mixture(values, half), temperature).means
            values[:, 1 - axis] = 0.0
        model = FixedMasses(data, Mixture(values, half), temperature)
        assert np.abs(model.pull).max() < 1e-10
        found.append((model, downward_direction(model)))
    assert found[0][1] is None
    saddle, direction = found[1]
    assert direction is not None
    assert saddle.inner(direction, saddle.curved(direction)) < 0
    solved = solve_equal(data, temperature, saddle.mixture)
    assert solved.converged
    assert solved.free_energy <= temperature * found[0][0].height + 1e-9
    assert solved.free_energy < temperature * saddle.height - 0.01
