import numpy as np

from geco_theory.forecast.components import cells, fit_components, reassign


def groups(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(900, 4)) * [3.0, 1.0, 0.5, 0.2]
    X[::3] += 40.0
    return np.asarray(X, np.float32)


def test_cells_are_found_and_described() -> None:
    X = groups(0)
    cell = cells(X, 2, 0)
    mixture = fit_components(X, cell, 0.0, 0)
    assert sorted(np.round(mixture.masses, 6)) == [round(1 / 3, 6), round(2 / 3, 6)]
    for c in range(2):
        np.testing.assert_allclose(mixture.means[c], X[cell == c].mean(axis=0), rtol=1e-4)
        eye = mixture.axes[c].T @ mixture.axes[c]
        np.testing.assert_allclose(eye, np.eye(4), atol=1e-5)
        assert (np.diff(mixture.variances[c]) <= 0).all()
        np.testing.assert_allclose(np.sqrt(mixture.variances[c, 0]), 3.0, rtol=0.15)


def test_a_small_cell_borrows_from_those_around_it() -> None:
    X = groups(1)
    cell = (X[:, 0] > 20).astype(int)
    few = np.concatenate([X[cell == 0], X[cell == 1][:2]])
    mixture = fit_components(few, np.repeat([0, 1], [(cell == 0).sum(), 2]), 0.0, 0)
    # two images have one direction; the component has all four
    np.testing.assert_allclose(mixture.variances[1], mixture.variances[0], rtol=0.3)


def test_images_are_assigned_to_where_they_cost_least() -> None:
    X = groups(2)
    cell = (X[:, 0] > 20).astype(int)
    wrong = cell.copy()
    wrong[:10] = 1 - wrong[:10]
    mixture = fit_components(X, wrong, 0.0, 0)
    found = reassign(X, np.zeros(len(X)), mixture, 0.5)
    np.testing.assert_array_equal(found, cell)
