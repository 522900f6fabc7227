import numpy as np
import pytest
import xarray as xr
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

from geco_theory.phase_transitions import PhaseTransitions
from geco_theory.spectral import compare_spectral_clustering

CENTRES = [[0, 0], [8, 0], [0, 8]]
X, Y = make_blobs(36, centers=CENTRES, cluster_std=0.5, random_state=1)
HEAT = np.array([0.2, 1.0, 2.0, 4.0, 60.0])


@pytest.fixture(scope="module")
def analysis() -> PhaseTransitions:
    return PhaseTransitions(temperatures=HEAT).fit(X)


@pytest.fixture(scope="module")
def found(analysis: PhaseTransitions) -> xr.Dataset:
    return compare_spectral_clustering(X, Y, analysis=analysis, random_state=0)


def test_separate_blobs_are_found_by_all_on_one_plateau(found: xr.Dataset) -> None:
    plateau = found.sel(temperature=[1.0, 2.0])
    np.testing.assert_array_equal(plateau.n_clusters, 3)
    np.testing.assert_array_equal(plateau.gap_clusters, 3)
    np.testing.assert_allclose(plateau.agreement, 1.0)
    np.testing.assert_allclose(plateau.accuracy, 1.0)
    assert float(plateau.spectral_gap.min()) > 0.3
    np.testing.assert_allclose(found.best_accuracy, 1.0)
    assert float(found.plateau_width.sel(temperature=1.0)) >= np.log(2.0) - 1e-12


def test_one_cluster_agrees_with_nothing(found: xr.Dataset) -> None:
    hot = found.sel(temperature=60.0)
    assert int(hot.n_clusters) == 1
    assert np.isnan(hot.agreement).all()
    assert float(hot.accuracy.sel(clustering="fixed_points")) == 0.0
    assert float(hot.accuracy.sel(clustering="kmeans")) == 1.0


def test_numbers_are_those_of_the_methods_themselves(
    found: xr.Dataset, analysis: PhaseTransitions
) -> None:
    own = analysis.predict(X, temperature=0.2)
    k = np.unique(own).size
    assert int(found.n_clusters[0]) == k
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    kmeans = KMeans(k, n_init=10, random_state=seed).fit_predict(X)
    assert float(found.agreement.sel(rival="kmeans")[0]) == pytest.approx(
        adjusted_rand_score(own, kmeans)
    )
    spectral = SpectralClustering(3, gamma=1 / (2 * 4.0), random_state=seed).fit_predict(X)
    assert float(found.accuracy.sel(clustering="spectral", temperature=4.0)) == pytest.approx(
        adjusted_rand_score(Y, spectral)
    )


def test_eigenvalues_are_those_of_the_random_walk(found: xr.Dataset) -> None:
    affinity = np.exp(-((X[:, None] - X[None]) ** 2).sum(axis=2) / (2 * 2.0))
    walk = affinity / affinity.sum(axis=1, keepdims=True)
    values = found.eigenvalues.sel(temperature=2.0).values
    expected = np.sort(np.linalg.eigvals(walk).real)[::-1][: values.size]
    np.testing.assert_allclose(values, expected, atol=1e-10)
    assert values[0] == pytest.approx(1.0, abs=1e-12)
    assert float(found.spectral_gap.sel(temperature=2.0)) == pytest.approx(values[2] - values[3])


def test_moons_are_spectral_clusterings_and_not_the_fixed_points() -> None:
    moons, labels = make_moons(60, noise=0.05, random_state=0)
    analysis = PhaseTransitions(temperatures=[0.03, 0.3, 0.6], n_transitions=0).fit(moons)
    found = compare_spectral_clustering(moons, labels, analysis=analysis, random_state=0)
    assert float(found.best_accuracy.sel(clustering="spectral")) > 0.95
    assert float(found.best_accuracy.sel(clustering="fixed_points")) < 0.5
    assert float(found.best_accuracy_temperature.sel(clustering="spectral")) == 0.03


def test_without_labels_and_with_other_temperatures(analysis: PhaseTransitions) -> None:
    seen: list[tuple[int, int]] = []
    found = compare_spectral_clustering(
        X, analysis=analysis, temperatures=[2.0, 1.0], max_clusters=2, random_state=0,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert "accuracy" not in found
    np.testing.assert_array_equal(found.temperature, [1.0, 2.0])
    assert np.isnan(found.agreement).all()  # three clusters are more than asked for
    assert np.isnan(found.best_agreement).all()
    assert seen == [(1, 2), (2, 2)]


def test_the_same_random_state_gives_the_same_numbers(
    found: xr.Dataset, analysis: PhaseTransitions
) -> None:
    again = compare_spectral_clustering(X, Y, analysis=analysis, random_state=0)
    xr.testing.assert_identical(found, again)


def test_cold_affinities_do_not_break_it(analysis: PhaseTransitions) -> None:
    found = compare_spectral_clustering(
        X, Y, analysis=analysis, temperatures=[1.0, 1e3], random_state=0
    )
    assert np.isfinite(found.accuracy).all()
    cold = compare_spectral_clustering(
        X[:8], Y[:8], masses="equal", temperatures=[1e-6, 1.0], random_state=0
    )
    np.testing.assert_allclose(cold.eigenvalues[0], 1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"y": Y[:5]}, "inconsistent numbers of samples"),
        ({"y": Y, "n_clusters": 1}, "`n_clusters` must be at least 2"),
        ({"y": np.zeros(36)}, "`n_clusters` must be at least 2"),
        ({"max_clusters": 1}, "`max_clusters` must be at least 2"),
        ({"memory_limit": 1e3}, "the affinity of 36 samples would need"),
    ],
)
def test_bad_arguments(analysis: PhaseTransitions, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compare_spectral_clustering(X, analysis=analysis, **arguments)
