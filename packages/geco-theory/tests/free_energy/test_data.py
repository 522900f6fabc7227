import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_theory.free_energy.data import StandardData


@pytest.mark.parametrize(("n", "d"), [(40, 5), (6, 200), (2, 1), (30, 30)])
def test_standard_coordinates_keep_all_distances(n: int, d: int) -> None:
    X = np.random.default_rng(0).normal(3.0, 2.0, (n, d))
    data = StandardData.from_samples(X)
    rows = data.rows[data.inverse]
    ours = data.scale * np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.testing.assert_allclose(ours, np.linalg.norm(X[:, None] - X[None], axis=2), atol=1e-11)
    np.testing.assert_allclose(data.to_user(rows), X, atol=1e-11)
    np.testing.assert_allclose(data.to_standard(X), rows, atol=1e-12)
    assert data.rows.shape[1] <= min(n - 1, d)
    assert np.square(rows).sum(axis=1).mean() == pytest.approx(1.0)


def test_variances_are_the_covariance_eigenvalues() -> None:
    X = np.random.default_rng(1).normal(size=(50, 4)) * [3, 2, 1, 0.1]
    data = StandardData.from_samples(X)
    exact = np.linalg.eigvalsh(np.cov(X.T, bias=True))[::-1]
    np.testing.assert_allclose(data.variances * data.scale**2, exact, rtol=1e-12)


def test_equal_rows_become_weights() -> None:
    X = np.array([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0], [0.0, 1.0]])
    data = StandardData.from_samples(X)
    np.testing.assert_array_equal(data.counts, [3, 1])
    np.testing.assert_array_equal(data.weights, [0.75, 0.25])
    np.testing.assert_array_equal(data.inverse, [0, 1, 0, 0])


@settings(deadline=None, max_examples=20)
@given(st.integers(-150, 150), st.integers(0, 1000))
def test_any_scale_gives_the_same_standard_data(power: int, seed: int) -> None:
    X = np.random.default_rng(seed).normal(size=(12, 3))
    plain = StandardData.from_samples(X)
    scaled = StandardData.from_samples(X * 2.0**power)
    np.testing.assert_allclose(scaled.rows, plain.rows, rtol=1e-10, atol=1e-12)
    assert scaled.scale == pytest.approx(plain.scale * 2.0**power, rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, -3e200, 0.1])
def test_data_that_do_not_vary_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="`X` has zero variance"):
        StandardData.from_samples(np.full((7, 3), value))


def test_the_axes_left_out_hold_no_more_than_was_allowed() -> None:
    data = StandardData.from_samples(np.random.default_rng(0).normal(size=(50, 6)))
    for rest in (0.0, 0.1, 0.5, 2.0):
        axes = data.leading_axes(rest)
        assert axes >= 1
        assert data.variances[axes:].sum() <= rest
        assert axes == 1 or data.variances[axes - 1 :].sum() > rest


def test_a_column_far_from_zero_costs_the_others_no_digits() -> None:
    X = np.random.default_rng(0).normal(size=(30, 2))
    far = StandardData.from_samples(np.column_stack([X, np.full(30, 1e15)]))
    alone = StandardData.from_samples(X)
    np.testing.assert_allclose(far.variances, alone.variances, rtol=1e-12)
    assert far.scale == pytest.approx(alone.scale, rel=1e-12)
    np.testing.assert_allclose(far.to_user(far.rows)[:, :2], X, atol=1e-12)
    np.testing.assert_array_equal(far.to_user(far.rows)[:, 2], 1e15)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_scales_whose_squares_are_no_numbers_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="other units"):
        StandardData.from_samples(np.random.default_rng(0).normal(size=(5, 2)) * scale)


def test_rows_in_order_are_the_same_data_with_near_rows_side_by_side() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 3)) * [5.0, 1.0, 0.1]
    X[1000] = X[7]
    data = StandardData.from_samples(X)
    ordered = data.in_order
    np.testing.assert_array_equal(ordered.rows[ordered.inverse], data.rows[data.inverse])
    np.testing.assert_array_equal(ordered.counts[ordered.inverse], data.counts[data.inverse])
    np.testing.assert_array_equal(ordered.weights[ordered.inverse], data.weights[data.inverse])

    def spread(rows: np.ndarray) -> float:
        return float(np.mean([rows[i : i + 188, 0].std() for i in range(0, len(rows), 188)]))

    assert spread(ordered.rows) < 0.5 * spread(data.rows)
