import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_theory.linalg import covariance_eigenvalues, principal_axes


@pytest.mark.parametrize("shape", [(40, 5), (5, 40), (7, 7)])
def test_eigenvalues_are_those_of_the_covariance(shape: tuple[int, int]) -> None:
    X = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1]) + 50.0
    expected = np.linalg.eigvalsh(np.cov(X.T, bias=True))[::-1][: min(shape)]
    np.testing.assert_allclose(covariance_eigenvalues(X), np.maximum(expected, 0), atol=1e-10)


@pytest.mark.parametrize("shape", [(40, 5), (5, 40)])
def test_the_first_axis_carries_the_largest_variance(shape: tuple[int, int]) -> None:
    X = np.random.default_rng(1).normal(size=shape) * np.linspace(1, 3, shape[1])
    axes, variances = principal_axes(X)
    axis = axes[:, 0]
    assert np.linalg.norm(axis) == pytest.approx(1.0)
    assert (X @ axis).var() == pytest.approx(covariance_eigenvalues(X)[0], rel=1e-9)
    assert axis[np.abs(axis).argmax()] > 0
    np.testing.assert_allclose(axes.T @ axes, np.eye(len(variances)), atol=1e-12)
    np.testing.assert_allclose(variances, (X @ axes).var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(variances.sum(), X.var(axis=0).sum(), rtol=1e-9)


@settings(deadline=None, max_examples=25)
@given(scale=st.sampled_from([1e-150, 1e-20, 1.0, 1e20, 1e150]))
def test_any_scale(scale: float) -> None:
    X = np.random.default_rng(2).normal(size=(12, 3))
    np.testing.assert_allclose(
        covariance_eigenvalues(X * scale), covariance_eigenvalues(X) * scale**2, rtol=1e-9
    )


def test_weights_count_rows_that_often() -> None:
    X = np.random.default_rng(3).normal(size=(6, 3))
    counts = np.array([1, 2, 1, 3, 1, 2])
    axes, variances = principal_axes(X, counts / counts.sum())
    repeated_axes, repeated = principal_axes(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(variances, repeated, rtol=1e-10)
    np.testing.assert_allclose(axes, repeated_axes, atol=1e-10)


def test_constant_data() -> None:
    np.testing.assert_array_equal(covariance_eigenvalues(np.ones((4, 2))), 0.0)
    assert np.isfinite(principal_axes(np.ones((4, 2)))[0]).all()


def test_a_far_point_costs_no_dimension() -> None:
    X = np.random.default_rng(4).normal(size=(60, 3))
    X[0] = 1e9
    axes, variances = principal_axes(X)
    assert axes.shape == (3, 3)
    np.testing.assert_allclose(variances, (X @ axes).var(axis=0), rtol=1e-4)


def test_columns_that_repeat_others_cost_no_axis() -> None:
    X = np.random.default_rng(5).normal(size=(40, 2)) @ np.array(
        [[1.0, 2.0, 0.5], [0.0, 1.0, 3.0]]
    )
    assert principal_axes(X)[0].shape == (3, 2)
