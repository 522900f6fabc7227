import numpy as np

from geco_theory.following import Solver, follow
from geco_theory.solutions import Solution
from geco_theory.standard_data import StandardData


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
