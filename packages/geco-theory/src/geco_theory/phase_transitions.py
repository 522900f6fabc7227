"""The estimator: a dataset's phase diagram over temperature."""

import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from geco_theory.equal_masses import solve_equal
from geco_theory.free_masses import solve_free
from geco_theory.kernels import log_joint
from geco_theory.mixtures import Mixture
from geco_theory.one_value import one_value_limit, stability_temperature
from geco_theory.paths import path_dataset
from geco_theory.solutions import Solution
from geco_theory.standard_data import Array, StandardData
from geco_theory.transitions import BIRTH, STABILITY, Transition, transitions_dataset

_DEFAULT_TEMPERATURES = 40
_LOWEST = 1 / 30  # of the top covariance eigenvalue
_ABOVE_TOP = 1.05  # times the top transition


class PhaseTransitions(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    r"""Fixed points of the infinite-capacity beta-VAE of a dataset, over temperature.

    At temperature :math:`T = \beta\sigma^2` the optimal decoder takes finitely many values
    :math:`\psi_a` with prior masses :math:`\pi_a`: the minimum of the free energy
    :math:`F = -T \langle \ln \sum_a \pi_a e^{-|x_i-\psi_a|^2/2T} \rangle = RE/2 + T\,KL` (D9).
    With `masses="equal"` every sample owns a tile of latent space of mass 1/n instead, as in the
    kind of simulation shown in Figure 2, and a local branch is followed.

    Args:
        masses: `"free"`: the global optimum, certified at every temperature. `"equal"`: one tile
            per sample, merged as the temperature rises.
        temperatures: Strictly monotone positive temperatures, or how many to space evenly in
            their logarithm between 1/30 of the stability temperature and just above the top
            transition; None means 40.
        tolerance: Free masses: the certificate ln S that every temperature must reach.
        progress: Called after every solved temperature with a dict: `done`, `total`,
            `temperature`, `n_clusters`, `stage`.

    Attributes:
        path_: Dataset over `temperature` (ascending): `distortion` (RE, squared error summed over
            the elements), `rate` (KL, nats), `free_energy`, `n_clusters`, `certificate` (ln S),
            `converged`.
        stability_temperature_: Top covariance eigenvalue; below it the one-value solution is
            unstable (D2).
        critical_temperatures_: Temperatures at which decoder values appear, descending.
        transitions_: Dataset over `transition`: `temperature`, `kind`, `distance`, `continuous`,
            `size`, `smaller_part`, `direction`.
        labels_: (n_samples,) decoder value of each sample at `temperature_`.
        temperature_: The temperature in the middle of the longest plateau of the number of
            clusters (in ln T, of two or more clusters): the default of `predict`.
        n_features_in_: Number of features seen by `fit`.

    Examples:
        >>> import numpy as np
        >>> from geco_theory import PhaseTransitions
        >>> X = np.array([[0.0, 0.1], [0.1, 0.0], [5.0, 5.1], [5.1, 5.0]])
        >>> analysis = PhaseTransitions(temperatures=10).fit(X)
        >>> analysis.n_clusters(1.0)
        2
    """

    def __init__(
        self,
        masses: Literal["free", "equal"] = "free",
        *,
        temperatures: int | ArrayLike | None = None,
        tolerance: float = 1e-6,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.masses = masses
        self.temperatures = temperatures
        self.tolerance = tolerance
        self.progress = progress

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Solve every temperature and find the transitions.

        Args:
            X: (n_samples, n_features) data.
            y: Ignored.

        Raises:
            ValueError: If `X` has fewer than two samples, NaN or infinite values or zero
                variance, or a parameter is out of range.
        """
        if self.masses not in ("free", "equal"):
            raise ValueError(f"`masses` must be 'free' or 'equal', got {self.masses!r}.")
        samples: Array = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        data = StandardData.from_samples(samples)
        unit = data.temperature_unit
        self._data = data
        self.stability_temperature_ = stability_temperature(data) * unit
        limit = one_value_limit(data, data.rows)
        grid = self._grid(limit.temperature * unit)
        self._solutions: dict[float, Solution] = {}
        start = Mixture(data.rows.copy(), data.weights.copy())
        try:
            for done, temperature in enumerate(grid, start=1):
                solution = self._solve(temperature, start)
                start = solution.mixture
                self._solutions[float(temperature)] = solution
                self._report(done, len(grid), solution)
        finally:
            if self._solutions:
                self.path_ = path_dataset(list(self._solutions.values()), unit)
        direction = data.axes @ limit.birth
        length = float(np.linalg.norm(direction))
        found = [
            Transition(self.stability_temperature_, STABILITY, 0.0, True, 1.0, data.axes[:, 0]),
            Transition(
                limit.temperature * unit,
                BIRTH,
                length * data.scale,
                limit.continuous,
                1.0,
                direction / length if length else data.axes[:, 0],
            ),
        ]
        self.transitions_: xr.Dataset = transitions_dataset(found, samples.shape[1])
        self.critical_temperatures_: Array = np.array([limit.temperature * unit])
        self.temperature_ = _longest_plateau(self.path_)
        self.labels_: NDArray[np.int64] = _consecutive(self._labels(data.rows, self.temperature_))[
            data.inverse
        ]
        return self

    def predict(self, X: ArrayLike, temperature: float | None = None) -> NDArray[np.int64]:
        """The most probable decoder value of each sample.

        Args:
            X: (n_samples, n_features) data; need not be the data of `fit`.
            temperature: T; None means `temperature_`. Solved now if it is not in `path_`.

        Returns:
            (n_samples,) index of the value, heaviest value first.
        """
        check_is_fitted(self)
        samples: Array = validate_data(self, X, dtype=np.float64, reset=False)
        chosen = self.temperature_ if temperature is None else temperature
        return self._labels(self._data.to_standard(samples), chosen)

    def n_clusters(self, temperature: float) -> int:
        """The number of distinct decoder values at a temperature, solved now if it is new."""
        return self._at(temperature).mixture.size

    def decoder_values(self, temperature: float) -> xr.Dataset:
        """The decoder values at a temperature: `value` (cluster, feature) and `mass` (cluster)."""
        mixture = self._at(temperature).mixture
        return xr.Dataset(
            {
                "value": (("cluster", "feature"), self._data.to_user(mixture.values)),
                "mass": ("cluster", mixture.masses),
            },
            attrs={"temperature": float(temperature)},
        )

    def _labels(self, rows: Array, temperature: float) -> NDArray[np.int64]:
        mixture = self._at(temperature).mixture
        scaled = temperature / self._data.temperature_unit
        block = max(1, 2**22 // mixture.size)
        parts = [
            log_joint(rows[begin : begin + block], mixture, scaled).argmax(axis=1)
            for begin in range(0, len(rows), block)
        ]
        return np.concatenate(parts).astype(np.int64)

    def _at(self, temperature: Any) -> Solution:
        check_is_fitted(self)
        number = float(temperature) if isinstance(temperature, Real) else math.nan
        if not (math.isfinite(number) and number > 0):
            raise ValueError(
                f"`temperature` must be a positive finite number, got {temperature!r}."
            )
        known = self._solutions.get(float(temperature))
        if known is not None:
            return known
        grid = np.array(list(self._solutions))
        below = grid[grid < temperature]
        if len(below):
            start = self._solutions[float(below.max())].mixture
        else:
            start = Mixture(self._data.rows.copy(), self._data.weights.copy())
        return self._solve(float(temperature), start)

    def _solve(self, temperature: float, start: Mixture) -> Solution:
        scaled = float(temperature) / self._data.temperature_unit
        if self.masses == "free":
            return solve_free(self._data, scaled, start, tolerance=self.tolerance)
        return solve_equal(self._data, scaled, start)

    def _report(self, done: int, total: int, solution: Solution) -> None:
        if self.progress is not None:
            self.progress(
                {
                    "stage": "path",
                    "done": done,
                    "total": total,
                    "temperature": solution.temperature * self._data.temperature_unit,
                    "n_clusters": solution.mixture.size,
                }
            )

    def _grid(self, top: float) -> Array:
        """The temperatures to solve, ascending."""
        wanted = _DEFAULT_TEMPERATURES if self.temperatures is None else self.temperatures
        if isinstance(wanted, int | np.integer):
            if wanted < 2:
                raise ValueError(f"`temperatures` must be at least 2, got {wanted}.")
            low = self.stability_temperature_ * _LOWEST
            return np.geomspace(low, _ABOVE_TOP * top, int(wanted))
        grid = np.atleast_1d(np.asarray(wanted, dtype=np.float64))
        if grid.ndim != 1 or not np.all(np.isfinite(grid)) or not np.all(grid > 0):
            raise ValueError(
                f"`temperatures` must be positive finite numbers in one dimension, got {wanted!r}."
            )
        steps = np.diff(grid)
        if not (np.all(steps > 0) or np.all(steps < 0)):
            raise ValueError(
                "`temperatures` must be strictly ascending or strictly descending: sort them and "
                "drop repeated ones."
            )
        return np.sort(grid)


def _longest_plateau(path: xr.Dataset) -> float:
    """The middle temperature of the longest run of one cluster count, at least two clusters."""
    temperatures = path["temperature"].to_numpy()
    counts = path["n_clusters"].to_numpy()
    best, chosen = -1.0, float(temperatures[0])
    begin = 0
    for count, run in itertools.groupby(counts):
        end = begin + len(list(run))
        if count >= 2 and not (begin == 0 and count == counts.max()):
            length = float(np.log(temperatures[end - 1] / temperatures[begin]))
            if length > best:
                best, chosen = length, float(temperatures[(begin + end - 1) // 2])
        begin = end
    return chosen


def _consecutive(labels: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels without gaps, in the same order."""
    return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)
