import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from geco_theory.latent_grid.grid import gaussian_grid


def test_masses_are_the_prior_of_the_cells() -> None:
    grid = gaussian_grid(5, dimensions=1, extent=2.0)
    np.testing.assert_allclose(grid.edges[0], [-1.5, -0.5, 0.5, 1.5])
    expected = np.diff(norm.cdf([-np.inf, -1.5, -0.5, 0.5, 1.5, np.inf]))
    np.testing.assert_allclose(np.exp(grid.log_mass), expected, rtol=1e-13)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_the_grid_integrates_the_prior(dimensions: int) -> None:
    grid = gaussian_grid(121, dimensions=dimensions, extent=6.0)
    mass = np.exp(grid.log_mass)
    assert mass.sum() == pytest.approx(1.0, abs=1e-13)
    np.testing.assert_allclose(mass @ grid.nodes, 0.0, atol=1e-13)
    # cells of width h add h^2 / 12 to the variance of the nodes
    np.testing.assert_allclose(mass @ grid.nodes**2, 1.0 + 0.1**2 / 12, rtol=1e-6)
    np.testing.assert_allclose(mass @ np.exp(grid.nodes), np.exp(0.5), rtol=1e-3)


def test_far_cells_keep_a_finite_log_mass() -> None:
    grid = gaussian_grid(81, dimensions=2, extent=60.0)
    assert np.isfinite(grid.log_mass).all()
    assert grid.log_mass.min() < -3000
    np.testing.assert_array_equal(grid.log_mass.reshape(grid.shape), grid.log_mass.reshape(
        grid.shape)[::-1, ::-1])  # fmt: skip
    assert logsumexp(grid.log_mass) == pytest.approx(0.0, abs=1e-12)


def test_the_last_coordinate_runs_fastest() -> None:
    grid = gaussian_grid(3, dimensions=2, extent=1.0)
    np.testing.assert_allclose(grid.nodes[:3], [[-1, -1], [-1, 0], [-1, 1]])
    assert (grid.cells, grid.dimensions) == (9, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"cells": 1}, ValueError, "`cells` must be at least 2"),
        ({"cells": 3.5}, TypeError, "`cells` must be a whole number"),
        ({"dimensions": 3}, ValueError, "`dimensions` must be 1 or 2"),
        ({"extent": 0.0}, ValueError, "`extent` must be positive"),
        ({"cells": 10_000_000}, ValueError, "GiB that may be used"),
    ],
)
def test_bad_grids(arguments: dict[str, float], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        gaussian_grid(**arguments)  # type: ignore[arg-type]
