import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from sklearn.datasets import load_digits, make_blobs

from geco_theory.latent_grid.errors import DifferentiableError, FeatureError, SquaredError
from geco_theory.latent_grid.fixed_points import GridProblem
from geco_theory.latent_grid.grid import gaussian_grid
from geco_theory.latent_grid.solver import solve_latent_grid

GRID = gaussian_grid(15, dimensions=2)
LINE = gaussian_grid(25, dimensions=1)


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    return make_blobs(60, centers=4, cluster_std=0.6, random_state=0)[0]


def dense_update(X: np.ndarray, log_mass: np.ndarray, decoder: np.ndarray, T: float) -> tuple:
    """Eqs. (3) and (4) as they are written, with the whole matrix of posteriors."""
    distances = ((X[:, None, :] - decoder[None]) ** 2).sum(axis=2)
    logits = log_mass - distances / (2 * T)
    log_q = logits - logsumexp(logits, axis=1, keepdims=True)
    log_w = log_q - logsumexp(log_q, axis=0, keepdims=True)
    free_energy = -T * logsumexp(logits, axis=1).mean()
    return np.exp(log_w).T @ X, np.exp(log_q), free_energy, distances


def test_iterations_are_equations_3_and_4_replayed(blobs: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(GRID.cells, 2)) * 3
    found = solve_latent_grid(
        blobs, GRID, temperature=1.3, start=decoder, jitter=0.0, max_iter=4, keep_trajectory=True
    )
    assert not found.converged
    for t in range(5):
        np.testing.assert_allclose(found.trajectory[t], decoder, rtol=1e-10, atol=1e-10)
        updated, _, energy, _ = dense_update(blobs, GRID.log_mass, decoder, 1.3)
        assert float(found.free_energy[t]) == pytest.approx(energy, rel=1e-13)
        decoder = updated


@pytest.mark.parametrize("temperature", [20.0, 8.0, 1.0, 0.1, 1e-3, 1e-7])
@pytest.mark.parametrize("grid", [GRID, LINE], ids=["plane", "line"])
def test_the_solution_is_a_fixed_point(blobs: np.ndarray, grid, temperature: float) -> None:
    found = solve_latent_grid(blobs, grid, temperature=temperature)
    assert found.converged
    decoder = found.decoder.values
    updated, q, energy, distances = dense_update(blobs, grid.log_mass, decoder, temperature)
    np.testing.assert_allclose(decoder, updated, atol=1e-6)
    assert float(found.free_energy[-1]) == pytest.approx(energy, rel=1e-10, abs=1e-12)
    rate = (q * (np.log(np.maximum(q, 1e-300)) - grid.log_mass)).sum(axis=1).mean()
    assert float(found.rate) == pytest.approx(rate, rel=1e-8, abs=1e-9)
    assert float(found.distortion) * 2 == pytest.approx((q * distances).sum(1).mean(), rel=1e-7)
    np.testing.assert_allclose(found.marginal_posterior, q.mean(axis=0), rtol=1e-6, atol=1e-15)
    # D6: the mean KL is the mutual information plus the marginal KL
    information = (q * np.log(np.maximum(q, 1e-300) / q.mean(axis=0))).sum(axis=1).mean()
    assert float(found.rate - found.marginal_kl) == pytest.approx(information, abs=1e-8)
    assert np.diff(found.free_energy).max() <= 1e-10


def test_above_the_stability_temperature_everything_is_the_mean(blobs: np.ndarray) -> None:
    top = np.linalg.eigvalsh(np.cov(blobs.T, bias=True))[-1]
    hot = solve_latent_grid(blobs, GRID, temperature=1.05 * top)
    np.testing.assert_allclose(
        hot.decoder, np.tile(blobs.mean(axis=0), (GRID.cells, 1)), atol=1e-6
    )
    assert float(hot.rate) == pytest.approx(0.0, abs=1e-12)
    cold = solve_latent_grid(blobs, GRID, temperature=0.95 * top)
    assert float(cold.rate) > 1e-3


def test_stated_error_is_the_true_error(blobs: np.ndarray) -> None:
    """Near a critical temperature, where small steps prove nothing."""
    top = np.linalg.eigvalsh(np.cov(blobs.T, bias=True))[-1]
    exact = solve_latent_grid(blobs, LINE, temperature=0.97 * top, tol=1e-12)
    rough = solve_latent_grid(blobs, LINE, temperature=0.97 * top, tol=1e-5)
    spread = np.sqrt(((blobs - blobs.mean(axis=0)) ** 2).sum(axis=1).mean())
    true = np.sqrt(((exact.decoder - rough.decoder) ** 2).sum("feature").max()) / spread
    assert exact.converged
    assert rough.converged
    assert float(true) <= 1e-5


def test_plain_iterations_reach_the_same_solution(blobs: np.ndarray) -> None:
    plain = solve_latent_grid(blobs, LINE, temperature=1.0, newton=False, max_iter=5000)
    quick = solve_latent_grid(blobs, LINE, temperature=1.0)
    assert plain.converged
    np.testing.assert_allclose(plain.decoder, quick.decoder, atol=1e-6)


def test_blocks_do_not_change_the_answer(blobs: np.ndarray) -> None:
    whole = solve_latent_grid(blobs, GRID, temperature=1.0)
    tiny = solve_latent_grid(blobs, GRID, temperature=1.0, block_bytes=1)
    np.testing.assert_allclose(whole.decoder, tiny.decoder, atol=1e-7)


def test_newton_curvature_is_the_derivative(blobs: np.ndarray) -> None:
    problem = GridProblem(blobs, GRID, SquaredError(), None, 1.1, 2**20, None)
    rng = np.random.default_rng(1)
    decoder, direction = rng.normal(size=(2, GRID.cells, 2))
    sweep = problem.sweep(decoder)
    ahead, behind = (problem.sweep(decoder + s * 1e-6 * direction) for s in (1, -1))
    slope = (
        np.exp(ahead.log_marginal)[:, None] * ahead.residual
        - np.exp(behind.log_marginal)[:, None] * behind.residual
    ) / 2e-6
    expected = slope / np.exp(sweep.log_marginal)[:, None]
    found = problem.curvature(decoder, sweep, direction)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_multiplier_and_temperature_are_one_parameter(blobs: np.ndarray) -> None:
    by_temperature = solve_latent_grid(blobs, LINE, temperature=0.8)
    by_multiplier = solve_latent_grid(blobs, LINE, multiplier=2 / (2 * 0.8))
    xr.testing.assert_allclose(by_temperature, by_multiplier, rtol=1e-9, atol=1e-9)


ROTATION = np.linalg.qr(np.random.default_rng(5).normal(size=(2, 2)))[0] * 1.7


def test_linear_features_are_the_squared_error_of_the_mapped_data(blobs: np.ndarray) -> None:
    error = FeatureError(lambda x: x @ ROTATION, lambda g, v: v @ ROTATION)
    start = LINE.nodes @ np.array([[2.0, 1.0]])
    mapped = solve_latent_grid(blobs, LINE, temperature=2.0, error=error, start=start, jitter=0)
    plain = solve_latent_grid(
        blobs @ ROTATION, LINE, temperature=2.0, start=start @ ROTATION, jitter=0
    )
    assert mapped.converged
    assert float(mapped.free_energy[-1]) == pytest.approx(float(plain.free_energy[-1]), rel=1e-9)
    np.testing.assert_allclose(mapped.decoder.values @ ROTATION, plain.decoder, atol=1e-5)


def test_curved_features_solve_equation_6(blobs: np.ndarray) -> None:
    def features(x: np.ndarray) -> np.ndarray:
        return np.column_stack([np.tanh(x[:, 0] / 3), np.tanh(x[:, 1] / 5), x.sum(axis=1) / 4])

    def jvp(g: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.column_stack([
            v[:, 0] / 3 / np.cosh(g[:, 0] / 3) ** 2,
            v[:, 1] / 5 / np.cosh(g[:, 1] / 5) ** 2,
            v.sum(axis=1) / 4,
        ])  # fmt: skip

    found = solve_latent_grid(blobs, LINE, temperature=0.1, error=FeatureError(features, jvp))
    assert found.converged
    assert float(found.rate) > 0.5
    decoder = found.decoder.values
    f, fg = features(blobs), features(decoder)
    logits = LINE.log_mass - ((f[:, None] - fg[None]) ** 2).sum(axis=2) / 0.2
    log_q = logits - logsumexp(logits, axis=1, keepdims=True)
    w = np.exp(log_q - logsumexp(log_q, axis=0, keepdims=True))
    for axis in np.eye(2):
        pulled = (jvp(decoder, np.tile(axis, (LINE.cells, 1))) * (fg - w.T @ f)).sum(axis=1)
        np.testing.assert_allclose(pulled, 0.0, atol=1e-7)


def test_fewer_features_than_elements(blobs: np.ndarray) -> None:
    """Only the sum of the elements is constrained: the rest stays where it started."""
    error = FeatureError(
        lambda x: x.sum(axis=1, keepdims=True),
        lambda g, v: v.sum(axis=1, keepdims=True),
        lambda g, u: np.repeat(u, 2, axis=1),
    )
    start = LINE.nodes @ np.array([[3.0, 3.0]]) + np.array([7.0, -7.0])
    found = solve_latent_grid(blobs, LINE, temperature=1.0, error=error, start=start, jitter=0)
    assert found.converged
    difference = found.decoder.values[:, 0] - found.decoder.values[:, 1]
    np.testing.assert_allclose(difference, 14.0, atol=1e-4)


def squared_as_general() -> DifferentiableError:
    return DifferentiableError(
        lambda X, g: ((X[:, None] - g[None]) ** 2).mean(axis=2),
        lambda X, g, w: 2 / X.shape[1] * (w.sum(axis=0)[:, None] * g - w.T @ X),
    )


def test_a_general_error_agrees_with_the_closed_form(blobs: np.ndarray) -> None:
    start = LINE.nodes @ np.array([[2.0, 1.0]])
    general = solve_latent_grid(
        blobs, LINE, multiplier=0.5, error=squared_as_general(), start=start, jitter=0
    )
    closed = solve_latent_grid(blobs, LINE, multiplier=0.5, start=start, jitter=0)
    assert general.converged
    np.testing.assert_allclose(general.decoder, closed.decoder, atol=1e-5)
    assert float(general.rate) == pytest.approx(float(closed.rate), abs=1e-8)


def test_a_robust_error_solves_equation_6(blobs: np.ndarray) -> None:
    def root(X: np.ndarray, g: np.ndarray) -> np.ndarray:
        return np.sqrt(1 + ((X[:, None] - g[None]) ** 2).sum(axis=2))

    def gradient(X: np.ndarray, g: np.ndarray, w: np.ndarray) -> np.ndarray:
        ratio = w / root(X, g)
        return ratio.sum(axis=0)[:, None] * g - ratio.T @ X

    found = solve_latent_grid(
        blobs, LINE, multiplier=3.0, error=DifferentiableError(root, gradient), tol=1e-6
    )
    assert found.converged
    decoder = found.decoder.values
    logits = LINE.log_mass - 3.0 * root(blobs, decoder)
    log_q = logits - logsumexp(logits, axis=1, keepdims=True)
    w = np.exp(log_q - logsumexp(log_q, axis=0, keepdims=True))
    np.testing.assert_allclose(gradient(blobs, decoder, w), 0.0, atol=1e-5)
    assert np.diff(found.free_energy).max() <= 1e-10


def test_a_gradient_that_is_not_the_errors_is_noticed(blobs: np.ndarray) -> None:
    class WrongError(SquaredError):
        def solve(self, decoder, represented, statistic, weighted):
            return 2.0 * statistic + 5.0

    with pytest.raises(RuntimeError, match="free energy rose"):
        solve_latent_grid(blobs, LINE, temperature=1.0, error=WrongError())


def test_digits_on_a_plane_converge() -> None:
    X = load_digits().data[:150] / 16
    found = solve_latent_grid(X, GRID, temperature=0.3)
    assert found.converged
    assert 0.0 < float(found.rate) < np.log(150)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "either `temperature` or `multiplier`"),
        ({"temperature": 1.0, "multiplier": 1.0}, ValueError, "either `temperature`"),
        ({"temperature": 0.0}, ValueError, "`temperature` must be positive"),
        ({"temperature": 1.0, "tol": 0.0}, ValueError, "`tol` must be positive"),
        ({"temperature": 1.0, "max_iter": -1}, ValueError, "`max_iter` must be at least 0"),
        ({"temperature": 1.0, "error": "RE"}, TypeError, "`error` must be"),
        ({"temperature": 1.0, "start": "random"}, ValueError, "`start` must be 'principal'"),
        ({"temperature": 1.0, "start": np.zeros((3, 2))}, ValueError, "`start` must be finite"),
        ({"temperature": 1.0, "memory_limit": 1e3}, ValueError, "15 x 15 cells with 2 features"),
    ],
)
def test_bad_arguments(
    blobs: np.ndarray, arguments: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        solve_latent_grid(blobs, GRID, **arguments)


@pytest.mark.parametrize("bad", [np.full((5, 2), np.nan), np.zeros((1, 2)), np.zeros(5)])
def test_bad_data(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"NaN|sample|1D"):
        solve_latent_grid(bad, GRID, temperature=1.0)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FeatureError(lambda x: x[:1], lambda g, v: v), "`features` must map"),
        (FeatureError(lambda x: x * np.nan, lambda g, v: v), "`features` must be finite"),
        (DifferentiableError(lambda X, g: X, lambda X, g, w: g), "`value` must give"),
        (
            DifferentiableError(lambda X, g: X @ g.T * 0, lambda X, g, w: w),
            "`gradient` must have the shape",
        ),
    ],
)
def test_bad_errors(blobs: np.ndarray, error, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        solve_latent_grid(blobs, LINE, temperature=1.0, error=error)
