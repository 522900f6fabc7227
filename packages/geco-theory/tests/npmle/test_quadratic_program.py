import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from geco_theory.npmle.quadratic_program import nonnegative_minimum


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 25), st.integers(0, 10_000), st.booleans())
def test_agrees_with_least_squares_under_signs(k: int, seed: int, warm: bool) -> None:
    rng = np.random.default_rng(seed)
    design, target = rng.normal(size=(k + 5, k)), rng.normal(size=k + 5)
    support = rng.random(k) < 0.5 if warm else None
    found = nonnegative_minimum(design.T @ design, design.T @ target, support)
    np.testing.assert_allclose(found, nnls(design, target)[0], atol=1e-9)


def test_all_zero_where_every_direction_goes_up() -> None:
    np.testing.assert_array_equal(nonnegative_minimum(np.eye(3), -np.ones(3)), 0.0)


def test_a_singular_matrix_still_gives_a_minimum() -> None:
    gram = np.array([[1.0, 1.0], [1.0, 1.0]])
    found = nonnegative_minimum(gram, np.array([2.0, 2.0]))
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(), 2.0, rtol=1e-6)
