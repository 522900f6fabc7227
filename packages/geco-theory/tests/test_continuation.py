import numpy as np
import pytest
import xarray as xr

from geco_theory.continuation import Solver, follow, longest_plateau, temperature_grid
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.solution import Solution


def test_solutions_are_reported_in_the_order_of_the_branch(standard_blobs: StandardData) -> None:
    solver = Solver(standard_blobs, "free", 1e-8, 1024.0)
    grid = np.geomspace(0.05, 0.9, 5)
    for direction, expected in (("heating", grid), ("cooling", grid[::-1])):
        seen: list[Solution] = []
        follow(solver, grid, direction, None, None, seen.append)  # type: ignore[arg-type]
        np.testing.assert_array_equal([s.temperature for s in seen], expected)


def test_parallel_stretches_cover_every_temperature(standard_blobs: StandardData) -> None:
    solver = Solver(standard_blobs, "free", 1e-8, 1024.0)
    grid = np.geomspace(0.05, 0.9, 7)
    seen: list[Solution] = []
    follow(solver, grid, "heating", None, 2, seen.append)
    np.testing.assert_array_equal(np.sort([s.temperature for s in seen]), grid)
    assert all(s.converged for s in seen)


def test_a_number_spans_from_below_stability_to_above_the_top() -> None:
    grid = temperature_grid(7, 3.0, 4.0)
    np.testing.assert_allclose(grid, np.geomspace(0.1, 4.2, 7))
    assert len(temperature_grid(None, 3.0, 4.0)) == 40


@pytest.mark.parametrize("given", [[1, 2, 4], [4.0, 2.0, 1.0], np.array([3.0])])
def test_temperatures_come_out_ascending(given: list[float]) -> None:
    np.testing.assert_array_equal(temperature_grid(given, 1.0, 1.0), np.sort(given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (1, "at least 2"),
        ([], "positive finite"),
        ([1.0, 0.0], "positive finite"),
        ([-1.0], "positive finite"),
        ([np.nan, 1.0], "positive finite"),
        ([[1.0]], "one dimension"),
        ([1.0, 3.0, 2.0], "strictly ascending or strictly descending"),
        ([1.0, 1.0], "strictly ascending or strictly descending"),
    ],
)
def test_bad_temperatures_are_refused(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        temperature_grid(given, 1.0, 1.0)  # type: ignore[arg-type]


def test_the_plateau_is_long_in_the_logarithm() -> None:
    path = xr.Dataset(
        {"n_clusters": ("temperature", [9, 5, 5, 3, 3, 1, 1, 1])},
        coords={"temperature": [1.0, 2.0, 8.0, 9.0, 20.0, 30.0, 40.0, 1000.0]},
    )
    assert longest_plateau(path) == 2.0
