r"""The fixed points beside spectral clustering, k-means and Gaussian mixtures.

The posteriors of Eq. (3) are rows of :math:`e^{-\|x_i - \psi_a\|^2 / 2T}`; with a decoder value on
every data point they are the affinity :math:`A_{ij} = e^{-\|x_i - x_j\|^2 / 2T}` of spectral
clustering, row-normalised. So one temperature serves both, and it can be measured where the
clusters of the fixed points are those of `sklearn.cluster.SpectralClustering` with
``gamma = 1 / (2 T)``, and whether a plateau of the number of decoder values is seen by the
spectral gap: the distance between the k-th and the next eigenvalue of
:math:`D^{-1/2} A D^{-1/2}` with :math:`D` the row sums.
"""

import itertools
import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_array, check_consistent_length, check_random_state

from geco_theory._typing import Array
from geco_theory.linalg import squared_distances
from geco_theory.memory import require_memory
from geco_theory.phase_transitions import PhaseTransitions
from geco_theory.validation import unmasked, whole_number

__all__ = ["compare_spectral_clustering"]

Labels = NDArray[np.int64]
RIVALS = ("spectral", "kmeans", "gaussian_mixture")
FIXED_POINTS = "fixed_points"


def compare_spectral_clustering(
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    n_clusters: int | None = None,
    analysis: PhaseTransitions | None = None,
    temperatures: ArrayLike | int | None = None,
    masses: Literal["free", "equal"] = "free",
    max_clusters: int = 30,
    covariance_type: Literal["full", "tied", "diag", "spherical"] = "full",
    memory_limit: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> xr.Dataset:
    r"""Compare the clusters of the fixed points with other clusterings over temperature.

    Two questions are answered apart. *Agreement*: is the partition at temperature T, with its
    K(T) clusters, the one that another method finds when told to find K(T)? *Accuracy*, where
    labels `y` are given: how close does each method come to them, the fixed points with their
    own K(T), the others with `n_clusters`? Both are adjusted Rand indices: 1 for equal partitions,
    0 in the mean for unrelated ones.

    Args:
        X: data (n_samples, n_features).
        y: labels (n_samples,) to compare with; optional.
        n_clusters: the number of clusters asked of the other methods in the comparison with
            `y`; by default the number of different labels.
        analysis: a fitted `PhaseTransitions` of the same data; by default one is fitted here.
        temperatures: of the comparison; by default those of the analysis.
        masses: of the analysis fitted here.
        max_clusters: where K(T) is larger, agreement and gap are not computed (NaN).
        covariance_type: of `sklearn.mixture.GaussianMixture`.
        memory_limit: bytes that may be taken by the n x n affinity; by default half of the free
            memory.
        progress: called with the number of temperatures done and in all.
        random_state: of the other methods.

    Returns:
        A dataset over ``temperature``: ``n_clusters`` (K, the labels in use), ``plateau_width``
        (the extent in ln T of the run of equal K around it), ``agreement`` (temperature, rival),
        ``eigenvalues`` (temperature, order; the largest of the normalised affinity),
        ``spectral_gap`` (behind the K-th), ``gap_clusters`` (the k >= 2 with the largest gap);
        ``best_agreement`` and ``best_agreement_temperature`` over ``rival``; and with `y`
        ``accuracy`` (temperature, clustering), ``best_accuracy`` and
        ``best_accuracy_temperature`` over ``clustering``. Partitions into one cluster agree with
        nothing: where K = 1 the agreement is NaN.

    Raises:
        ValueError: unusable data, labels of another length, fewer than 2 clusters asked for, or
            an affinity that would not fit in memory.
    """
    unmasked(X, "X")
    data = np.asarray(check_array(X, dtype=np.float64, ensure_min_samples=3, input_name="X"))
    n = data.shape[0]
    most = whole_number(max_clusters, "max_clusters", least=2)
    truth: NDArray[np.generic] | None = None
    wanted = 0
    if y is not None:
        truth = np.asarray(y)
        check_consistent_length(data, truth)
        wanted = np.unique(truth).size if n_clusters is None else n_clusters
        wanted = whole_number(wanted, "n_clusters", least=2)
    require_memory(3.0 * 8.0 * n * n, f"the affinity of {n} samples", memory_limit)
    rng = check_random_state(random_state)
    seed = int(rng.randint(2**31 - 1))

    if analysis is None:
        analysis = PhaseTransitions(masses, temperatures=temperatures).fit(data)
        temperatures = None
    if temperatures is None:
        grid = np.sort(np.asarray(analysis.path_["temperature"].values, dtype=np.float64))
    else:
        grid = np.sort(np.atleast_1d(np.asarray(temperatures, dtype=np.float64)))
    distances = squared_distances(data, data)
    np.fill_diagonal(distances, 0.0)

    partitions = _Partitions(data, distances, covariance_type, seed)
    order = min(n - 1, max(most, wanted) + 1)
    counts = np.empty(grid.size, dtype=np.int64)
    agreement = np.full((grid.size, len(RIVALS)), np.nan)
    accuracy = np.full((grid.size, 1 + len(RIVALS)), np.nan)
    eigenvalues = np.empty((grid.size, order))
    gaps = np.full(grid.size, np.nan)
    heuristic = np.empty(grid.size, dtype=np.int64)
    for i, temperature in enumerate(grid):
        own = np.asarray(analysis.predict(data, temperature=float(temperature)))
        counts[i] = clusters = np.unique(own).size
        eigenvalues[i] = values = _spectrum(distances, float(temperature), order)
        if clusters < values.size:
            gaps[i] = values[clusters - 1] - values[clusters]
        heuristic[i] = 2 + int(np.argmax(-np.diff(values)[1:])) if order > 2 else 2
        if 2 <= clusters <= min(most, n - 2):
            for j, rival in enumerate(RIVALS):
                agreement[i, j] = _score(own, partitions.of(rival, clusters, float(temperature)))
        if truth is not None:
            accuracy[i, 0] = adjusted_rand_score(truth, own)
            for j, rival in enumerate(RIVALS):
                labels = partitions.of(rival, wanted, float(temperature))
                accuracy[i, 1 + j] = _score(truth, labels)
        if progress is not None:
            progress(i + 1, grid.size)

    dataset = xr.Dataset(
        {
            "n_clusters": ("temperature", counts, {"long_name": "clusters of the fixed points"}),
            "plateau_width": (
                "temperature", _plateaus(grid, counts), {"long_name": "plateau's extent in ln T"},
            ),
            "agreement": (
                ("temperature", "rival"), agreement,
                {"long_name": "adjusted Rand index with the fixed points, at equal k"},
            ),
            "eigenvalues": (
                ("temperature", "order"), eigenvalues,
                {"long_name": "eigenvalues of the normalised affinity"},
            ),
            "spectral_gap": ("temperature", gaps, {"long_name": "gap behind the K-th eigenvalue"}),
            "gap_clusters": ("temperature", heuristic, {"long_name": "k >= 2 of the largest gap"}),
        },
        {
            "temperature": (
                "temperature", grid, {"long_name": "temperature T", "units": "(data unit)^2"},
            ),
            "rival": list(RIVALS),
            "order": np.arange(1, order + 1),
        },
    )  # fmt: skip
    _add_best(dataset, "agreement", "rival")
    if truth is not None:
        dataset = dataset.assign_coords(clustering=[FIXED_POINTS, *RIVALS])
        dataset["accuracy"] = (
            ("temperature", "clustering"), accuracy, {"long_name": "adjusted Rand index with y"},
        )  # fmt: skip
        _add_best(dataset, "accuracy", "clustering")
        dataset.attrs["n_clusters_asked"] = wanted
    return dataset


class _Partitions:
    """The other methods' labels, each computed once."""

    def __init__(self, X: Array, distances: Array, covariance_type: str, seed: int) -> None:
        self.X = X
        self.distances = distances
        self.covariance_type = covariance_type
        self.seed = seed
        self.known: dict[tuple[str, int], Labels | None] = {}

    def of(self, rival: str, k: int, temperature: float) -> Labels | None:
        """Labels of one method with k clusters; None where the method cannot give any."""
        if rival == "spectral":
            return self._spectral(k, temperature)
        if (rival, k) not in self.known:
            self.known[rival, k] = self._kmeans(k) if rival == "kmeans" else self._mixture(k)
        return self.known[rival, k]

    def _kmeans(self, k: int) -> Labels | None:
        return self._quietly(KMeans(k, n_init=10, random_state=self.seed).fit_predict, self.X)

    def _mixture(self, k: int) -> Labels | None:
        mixture = GaussianMixture(
            k,
            covariance_type=self.covariance_type,
            n_init=2,
            # relative to the data, so that its scale does not matter
            reg_covar=1e-4 * float(self.X.var(axis=0).max() or 1.0),
            random_state=self.seed,
        )
        return self._quietly(mixture.fit_predict, self.X)

    def _spectral(self, k: int, temperature: float) -> Labels | None:
        affinity = np.exp(self.distances / (-2.0 * temperature))
        method = SpectralClustering(k, affinity="precomputed", random_state=self.seed)
        return self._quietly(method.fit_predict, affinity)

    def _quietly(self, fit_predict: Callable[[Array], object], X: Array) -> Labels | None:
        """Without the warnings that cold affinities (disconnected graphs) and ties bring."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                return np.asarray(fit_predict(X), dtype=np.int64)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError, RuntimeError):
                return None  # the method itself gave up: no labels at this temperature


def _score(labels: NDArray[np.generic], others: Labels | None) -> float:
    """The adjusted Rand index, NaN where there is nothing to compare."""
    return float("nan") if others is None else float(adjusted_rand_score(labels, others))


def _spectrum(distances: Array, temperature: float, count: int) -> Array:
    """The largest eigenvalues of the normalised affinity, descending."""
    affinity = np.exp(distances / (-2.0 * temperature))
    scale = 1.0 / np.sqrt(affinity.sum(axis=1))
    affinity *= scale[:, None]
    affinity *= scale
    n = affinity.shape[0]
    found = eigh(
        affinity, eigvals_only=True, subset_by_index=[max(0, n - count), n - 1], overwrite_a=True
    )
    return np.asarray(found[::-1])


def _plateaus(temperatures: Array, counts: Labels) -> Array:
    """The extent in ln T of the run of equal counts around each temperature."""
    widths = np.empty(temperatures.size)
    start = 0
    for _, run in itertools.groupby(counts):
        stop = start + len(list(run))
        widths[start:stop] = np.log(temperatures[stop - 1] / temperatures[start])
        start = stop
    return widths


def _add_best(dataset: xr.Dataset, name: str, dimension: str) -> None:
    """The largest value over temperature of each method, and where it is."""
    values = dataset[name].fillna(-np.inf)
    best = values.max("temperature")
    where = dataset["temperature"][values.argmax("temperature")]
    known = np.isfinite(best)
    dataset[f"best_{name}"] = best.where(known)
    dataset[f"best_{name}_temperature"] = (dimension, where.where(known).values)
