import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp

from geco_theory.latent_grid.errors import FeatureError
from geco_theory.latent_grid.geometry import latent_geometry
from geco_theory.latent_grid.grid import gaussian_grid
from geco_theory.latent_grid.solver import solve_latent_grid

GRID = gaussian_grid(21)
LINE = gaussian_grid(40, dimensions=1)
X = np.random.default_rng(3).normal(size=(9, 2)) * [2.0, 1.0]


def measured(temperature: float, max_iter: int = 2000, **options: object) -> xr.Dataset:
    solution = solve_latent_grid(X, GRID, temperature=temperature, max_iter=max_iter)
    return latent_geometry(X, solution, **options)  # type: ignore[arg-type]


def test_every_measure_against_the_whole_matrix_of_posteriors() -> None:
    found = measured(0.3, max_iter=1)
    decoder = found.decoder.values
    distances = np.linalg.norm(X[:, None] - decoder[None], axis=2)
    logits = GRID.log_mass - distances**2 / 0.6
    log_q = logits - logsumexp(logits, axis=1, keepdims=True)
    log_w = log_q - logsumexp(log_q, axis=0, keepdims=True)
    q, w = np.exp(log_q), np.exp(log_w)
    mean = w.T @ X
    np.testing.assert_allclose(found.effective_points, np.exp(-(w * log_w).sum(axis=0)), rtol=1e-9)
    np.testing.assert_allclose(found.largest_weight, w.max(axis=0), rtol=1e-10)
    np.testing.assert_array_equal(found.owner, w.argmax(axis=0))
    blur = np.sqrt((w * ((X[:, None] - mean[None]) ** 2).sum(axis=2)).sum(axis=0))
    np.testing.assert_allclose(found.blur, blur, atol=1e-7)
    np.testing.assert_allclose(found.nearest_distance, distances.min(axis=0), atol=1e-7)
    ratio = logsumexp(log_q, axis=0) - np.log(9) - GRID.log_mass
    np.testing.assert_allclose(found.log_density_ratio, ratio, atol=1e-10)
    np.testing.assert_allclose(found.overlap, (q * (1 - w)).sum(axis=1), atol=1e-10)
    np.testing.assert_allclose(found.kl, (q * (log_q - GRID.log_mass)).sum(axis=1), atol=1e-10)
    hole = ratio < np.log(0.1)
    assert float(found.hole_mass) == pytest.approx(np.exp(GRID.log_mass)[hole].sum(), abs=1e-12)
    np.testing.assert_allclose(found.freedom, np.sqrt(0.6 / np.exp(ratio)), rtol=1e-9)


def test_hot_posteriors_overlap_wholly_and_cold_ones_do_not() -> None:
    hot = measured(100.0)
    assert float(hot.mean_effective_points) == pytest.approx(9.0, rel=1e-9)
    assert float(hot.mean_overlap) == pytest.approx(8 / 9, rel=1e-9)
    spread = np.sqrt(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert float(hot.mean_blur) == pytest.approx(spread, rel=1e-6)
    cold = measured(1e-4)
    assert float(cold.mean_overlap) < 1e-3
    assert float(cold.mean_effective_points) < 1.01
    assert float(cold.nearest_distance.max()) < 1e-3


def test_overlap_blurs() -> None:
    """The reconstruction leaves the data where, and only where, several points share a place."""
    found = measured(0.2)
    shared = found.effective_points.values > 1.5
    alone = found.effective_points.values < 1.01
    assert shared.any()
    assert alone.any()
    assert found.nearest_distance.values[shared].min() > 0.1
    assert found.nearest_distance.values[alone].max() < 0.05


def test_a_linear_decoder_has_holes_and_the_fixed_point_closes_them() -> None:
    start, solved = measured(0.2, max_iter=0), measured(0.2)
    assert float(start.hole_mass) > 0.2
    assert float(start.hole_distance) > 2 * float(start.elsewhere_distance)
    assert float(solved.hole_mass) == 0.0
    assert np.isnan(float(solved.hole_distance))


def test_the_reconstruction_in_a_hole_is_unconstrained() -> None:
    """Sent far away, it costs next to nothing; sent away elsewhere, it costs nats."""
    solution = solve_latent_grid(X, GRID, temperature=0.2, max_iter=0)
    hole = latent_geometry(X, solution).hole.values

    def cost(cells: np.ndarray) -> float:
        moved = solution.decoder.values.copy()
        moved[cells] += 1e3
        sent = solve_latent_grid(X, GRID, temperature=0.2, start=moved, jitter=0.0, max_iter=0)
        return (float(sent.free_energy[0]) - float(solution.free_energy[0])) / 0.2

    assert cost(hole) < 0.02
    assert cost(~hole) > 1.0


def test_threshold_and_feature_errors() -> None:
    error = FeatureError(lambda x: x[:, :1], lambda g, v: v[:, :1])
    solution = solve_latent_grid(X, LINE, temperature=0.1, error=error)
    found = latent_geometry(X, solution, error=error, hole_threshold=2.0)
    low = found.log_density_ratio.values < np.log(2.0)
    assert float(found.hole_mass) == pytest.approx(found.prior_mass.values[low].sum(), rel=1e-12)
    strict = latent_geometry(X, solution, error=error, hole_threshold=1e-6)
    assert float(strict.hole_mass) <= float(found.hole_mass)
    # the rate belongs to the features' error, not to the data's
    assert float(found.kl.mean()) == pytest.approx(float(solution.rate), rel=1e-8)


def test_bad_input() -> None:
    solution = solve_latent_grid(X, LINE, temperature=1.0)
    with pytest.raises(ValueError, match="`X` must have the 2 features"):
        latent_geometry(np.zeros((4, 3)), solution)
    with pytest.raises(ValueError, match="`solution` must be a dataset"):
        latent_geometry(X, xr.Dataset())
    with pytest.raises(ValueError, match="`hole_threshold` must be positive"):
        latent_geometry(X, solution, hole_threshold=-1.0)
