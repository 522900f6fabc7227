import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_theory.conjugate_gradients import ConjugateGradients


@given(st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_as_many_iterations_as_there_are_unknowns_solve_the_equation(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    weight = rng.uniform(0.5, 2.0, n)
    # symmetric in the weighted inner product: W A is symmetric
    matrix = (root @ root.T + n * np.eye(n)) / weight[:, None]
    right = rng.normal(size=n)
    solver = ConjugateGradients(lambda v: matrix @ v, lambda u, v: float(u @ (weight * v)), right)
    found = np.zeros(n)
    for _ in range(n):
        bend, _ = solver.curvature()
        found += solver.advance(bend)
        if solver.square < 1e-28:
            break
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(solver.residual, right - matrix @ found, atol=1e-10)


def test_the_curvature_of_the_first_direction_is_that_of_the_right_side() -> None:
    matrix = np.diag([1.0, -2.0])
    solver = ConjugateGradients(
        lambda v: matrix @ v, lambda u, v: float(u @ v), np.array([0.0, 1.0])
    )
    assert solver.curvature() == (pytest.approx(-2.0), pytest.approx(1.0))
