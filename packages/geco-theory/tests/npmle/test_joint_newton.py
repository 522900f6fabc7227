import numpy as np
import pytest

from geco_theory.free_energy.blahut_arimoto import moments, responsibilities
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle import hessian as curvature_module
from geco_theory.npmle.hessian import curvature
from geco_theory.npmle.joint_newton import NewtonSystem, against, along
from geco_theory.npmle.solver import solve_free

T = 0.3


@pytest.fixture(scope="module")
def optimum(standard_blobs: StandardData) -> Mixture:
    start = Mixture(standard_blobs.rows.copy(), standard_blobs.weights.copy())
    return solve_free(standard_blobs, 0.02, start, tolerance=1e-12).mixture


def shaken(mixture: Mixture, size: float) -> Mixture:
    rng = np.random.default_rng(0)
    values = mixture.values + size * rng.normal(size=mixture.values.shape)
    masses = mixture.masses * (1 + size * rng.normal(size=mixture.size))
    return Mixture(values, masses)


def objective(data: StandardData, mixture: Mixture, temperature: float) -> float:
    return moments(data, mixture, temperature).free_energy / temperature + mixture.masses.sum()


def test_newton_steps_converge_where_plain_steps_crawl(
    standard_blobs: StandardData, optimum: Mixture
) -> None:
    mixture = shaken(optimum, 1e-3)
    errors = [np.abs(mixture.values - optimum.values).max()]
    for _ in range(3):
        q, _ = responsibilities(standard_blobs.rows, mixture, 0.02)
        system = NewtonSystem.at(standard_blobs, mixture, 0.02, q, 1e-4)
        step = system.direction(standard_blobs, mixture, 0.02, q)
        mixture = Mixture(mixture.values + step.values, mixture.masses + step.masses)
        errors.append(np.abs(mixture.values - optimum.values).max())
    assert errors[3] < 1e-4 * errors[0]
    plain = shaken(optimum, 1e-3)
    for _ in range(3):
        state = moments(standard_blobs, plain, 0.02)
        plain = Mixture(state.means, state.mass)
    assert np.abs(plain.values - optimum.values).max() > 0.1 * errors[0]


def test_the_slope_is_the_derivative(standard_blobs: StandardData, optimum: Mixture) -> None:
    mixture = shaken(optimum, 0.05)
    q, _ = responsibilities(standard_blobs.rows, mixture, 0.02)
    step = NewtonSystem.at(standard_blobs, mixture, 0.02, q).direction(
        standard_blobs, mixture, 0.02, q
    )

    def f(length: float) -> float:
        moved = Mixture(
            mixture.values + length * step.values, mixture.masses + length * step.masses
        )
        return objective(standard_blobs, moved, 0.02)

    assert step.slope == pytest.approx((f(1e-6) - f(-1e-6)) / 2e-6, rel=1e-6)
    assert step.slope < 0


def test_the_floor_keeps_masses(standard_blobs: StandardData, optimum: Mixture) -> None:
    extra = Mixture(
        np.concatenate([optimum.values, optimum.values[:1] + 0.05]),
        np.concatenate([optimum.masses * 0.99, [0.01]]),
    )
    q, _ = responsibilities(standard_blobs.rows, extra, 0.02)
    system = NewtonSystem.at(standard_blobs, extra, 0.02, q)
    free = system.direction(standard_blobs, extra, 0.02, q)
    held = system.direction(standard_blobs, extra, 0.02, q, floor=0.5)
    assert (extra.masses + free.masses >= 0).all()
    assert (extra.masses + held.masses >= 0.5 * extra.masses - 1e-15).all()


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.2])
def test_sparse_and_dense_supports_give_one_matrix(
    standard_digits: StandardData, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = standard_digits
    mixture = Mixture(data.rows[::5].copy(), np.full(30, 1 / 30))
    q, _ = responsibilities(data.rows, mixture, temperature)
    right = np.random.default_rng(0).normal(size=len(data.rows))
    found = []
    for dense in (0.0, 1.1):
        monkeypatch.setattr(curvature_module, "_DENSE", dense)
        monkeypatch.setattr(curvature_module, "_NEGLIGIBLE", 0.0)
        monkeypatch.setattr(curvature_module, "_LEAST_POSTERIOR", 0.0)
        part = curvature(data, mixture, temperature, q, 1e-3)
        found.append((part.inverses, part.solve(right)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-2, atol=1e-3)


def test_along_and_against_are_transposes(standard_digits: StandardData) -> None:
    rng = np.random.default_rng(0)
    mixture = Mixture(standard_digits.rows[:9].copy(), np.full(9, 1 / 9))
    q, _ = responsibilities(standard_digits.rows, mixture, T)
    move = rng.normal(size=mixture.values.shape)
    y = rng.normal(size=len(standard_digits.rows))
    left = y @ along(standard_digits.rows, mixture, q, move)
    right = np.sum(move * against(standard_digits.rows, mixture, q, y))
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.3])
def test_both_factorisations_are_of_one_system(
    standard_blobs: StandardData, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    mixture = Mixture(standard_blobs.rows[:9], rng.dirichlet(np.ones(9)))
    q = responsibilities(standard_blobs.rows, mixture, temperature)[0]
    columns = rng.normal(size=(len(standard_blobs.rows), 4))
    found = []
    for share in (0.5, -1.0):
        monkeypatch.setattr(curvature_module, "_PRIMAL", share)
        part = curvature(standard_blobs, mixture, temperature, q, 0.02)
        assert (part.features is not None) is (share > 0)
        found.append((part.solve(columns[:, 0]), part.quadratic(columns.copy())))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=2e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4, atol=2e-4)
    assert np.linalg.eigvalsh(found[0][1]).min() > 0
