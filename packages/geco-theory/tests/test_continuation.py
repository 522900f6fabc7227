import numpy as np
import pytest
import xarray as xr

from geco_theory.continuation import Solver, follow, longest_plateau, lowered, temperature_grid
from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.solution import Solution
from geco_theory.transitions.stability import top_transition


def test_solutions_are_reported_in_the_order_of_the_branch(standard_blobs: StandardData) -> None:
    solver = Solver(standard_blobs, "free", 1e-8, 1024.0)
    grid = np.geomspace(0.05, 0.9, 5)
    for direction, expected in (("heating", grid), ("cooling", grid[::-1])):
        seen: list[Solution] = []
        follow(solver, grid, direction, None, None, seen.append, seen.append)  # type: ignore[arg-type]
        np.testing.assert_array_equal([s.temperature for s in seen], expected)


def test_parallel_stretches_cover_every_temperature(standard_blobs: StandardData) -> None:
    solver = Solver(standard_blobs, "free", 1e-8, 1024.0)
    grid = np.geomspace(0.05, 0.9, 7)
    seen: list[Solution] = []
    follow(solver, grid, "heating", None, 2, seen.append, seen.append)
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


def test_a_solution_above_its_neighbours_is_solved_again(standard_blobs: StandardData) -> None:
    solver = Solver(standard_blobs, "free", 1e-9, 1024.0)
    right = [solver.solve(t, solver.one_value()) for t in (0.05, 0.1, 0.2)]
    state = moments(standard_blobs, solver.one_value(), 0.1)
    false = Solution.of(0.1, solver.one_value(), state, 0.0, 1e-9, {})
    assert false.converged  # as it says
    (better,) = lowered(solver, [right[0], false, right[2]])
    assert better.temperature == 0.1
    assert better.free_energy == pytest.approx(right[1].free_energy, rel=1e-12)
    assert list(lowered(solver, right)) == []


def test_above_the_top_transition_one_value_is_where_the_search_begins() -> None:
    data = StandardData.from_samples(np.eye(30))
    top = top_transition(data).temperature
    solver = Solver(data, "free", 1e-9, 1024.0, top=top)
    assert solver.solve(1.001 * top, solver.all_data()).work.get("newton", 0) == 0
    assert solver.solve(1.001 * top, solver.all_data()).mixture.size == 1
    assert solver.solve(0.999 * top, solver.all_data()).mixture.size > 1


@pytest.mark.parametrize(("highest", "first"), [(1.1, 1.1), (0.3, 0.02)])
def test_both_ends_begin_at_the_top_unless_all_is_cold(
    standard_digits: StandardData, highest: float, first: float
) -> None:
    top = top_transition(standard_digits).temperature
    solver = Solver(standard_digits, "free", 1e-6, 1024.0, top=top)
    grid = top * np.geomspace(0.02, highest, 6)
    seen: list[Solution] = []
    follow(solver, grid, "both ends", None, None, seen.append, seen.append)
    assert seen[0].temperature == pytest.approx(first * top)
    np.testing.assert_allclose(np.sort([s.temperature for s in seen]), grid)
    assert all(s.converged for s in seen)
