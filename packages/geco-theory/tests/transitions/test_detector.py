import numpy as np
import pytest

from geco_theory.transitions.detector import detect, second_derivative, share_found


def test_the_second_derivative_of_a_parabola_on_any_grid() -> None:
    t = np.sort(np.random.default_rng(0).uniform(1, 5, 20))
    found = second_derivative(t, 3 * t**2 - t)
    np.testing.assert_allclose(found[1:-1], 6.0, rtol=1e-6)
    assert np.isnan(found[[0, -1]]).all()
    assert np.isnan(second_derivative(t[:2], t[:2])).all()


def test_kinks_are_detected_highest_first() -> None:
    t = np.linspace(0, 10, 101)
    error = t - 3 * np.maximum(t - 2, 0) * 0.1 - np.maximum(t - 5, 0) * 0.5 - 0.1 * np.abs(t - 8)
    found = detect(t, error)
    np.testing.assert_allclose(found, [5.0, 2.0, 8.0], atol=0.051)
    assert len(detect(t, error, number=1)) == 1
    assert len(detect(t[:2], error[:2])) == 0


def test_the_end_of_a_grid_is_no_maximum() -> None:
    t = np.geomspace(0.1, 1, 30)
    error = -np.log(t)  # its second derivative is largest at the lowest temperature
    assert np.nanargmax(second_derivative(t, error)) == 1
    assert len(detect(t, error)) == 0


def test_the_share_counts_transitions_within_one_step() -> None:
    grid = np.geomspace(1, 16, 5)
    assert share_found(np.array([2.0]), np.array([2.1, 5.0]), grid) == 0.5
    assert share_found(np.array([]), np.array([2.1]), grid) == 0.0
    assert np.isnan(share_found(np.array([2.0]), np.array([]), grid))
    assert share_found(grid, grid, grid) == pytest.approx(1.0)


def test_the_three_sharpest_kinks_are_found_in_any_order_of_the_grid() -> None:
    T = np.linspace(0.1, 5.0, 200)
    kinks = {1.0: 3.0, 2.0: 1.0, 3.0: 5.0, 4.0: 2.0}
    error = sum(size * np.maximum(T - place, 0.0) for place, size in kinks.items())
    found = detect(T, error)
    np.testing.assert_allclose(found, [3.0, 1.0, 4.0], atol=0.05)
    np.testing.assert_array_equal(detect(T[::-1], error[::-1]), found)
    assert detect(T[:3], error[:3]).size == 0


def test_a_trough_of_the_second_derivative_counts_like_a_peak() -> None:
    T = np.linspace(0.1, 5.0, 200)
    falling = -np.maximum(T - 2.0, 0.0)
    assert detect(T, falling)[0] == pytest.approx(2.0, abs=0.05)


def test_vectors_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        detect([1.0, 2.0], [1.0])
