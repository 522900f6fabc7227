"""The estimator: a dataset's phase diagram over temperature."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import sklearn
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from geco_theory._typing import Array
from geco_theory.continuation import (
    Solver,
    follow,
    longest_plateau,
    path_dataset,
    temperature_grid,
)
from geco_theory.free_energy.blahut_arimoto import most_probable
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.solution import Solution
from geco_theory.transitions.detector import detect, share_found
from geco_theory.transitions.locate import births_below, merges_below
from geco_theory.transitions.splits import cool
from geco_theory.transitions.stability import OneValueLimit, stability_temperature, top_transition
from geco_theory.transitions.table import (
    BIRTH,
    MERGE,
    SPLIT,
    birth_transition,
    change_transition,
    top_transitions,
    transitions_dataset,
)
from geco_theory.validation import positive, unmasked, whole_number

_SEEN = ("n_features_in_", "feature_names_in_")  # set by the checks of X themselves
_ALL_CLUSTERS = 3000  # data points up to which the path goes down to one value per point
_DEFAULT_CLUSTERS = 500


class PhaseTransitions(BaseEstimator):  # type: ignore[misc]
    r"""Fixed points of the infinite-capacity beta-VAE of a dataset, over temperature.

    At temperature :math:`T = \beta\sigma^2` the optimal decoder takes finitely many values
    :math:`\psi_a` with prior masses :math:`\pi_a`: the minimum of the free energy
    :math:`F = -T \langle \ln \sum_a \pi_a e^{-|x_i-\psi_a|^2/2T} \rangle = RE/2 + T\,KL` (D9).
    With `masses="equal"` every sample owns a tile of latent space of mass 1/n instead, as in the
    kind of simulation shown in Figure 2, and a local branch is followed.

    Args:
        masses: `"free"`: the global optimum, certified at every temperature. `"equal"`: one tile
            per sample, merged as the temperature rises.
        temperatures: Strictly ascending or descending positive temperatures, or how many to
            space evenly in their logarithm between 1/30 of the stability temperature and just
            above the top transition; None means 40.
        direction: `"heating"`, `"cooling"`, or `"both"` (equal masses: the cooling branch then
            goes to `cooling_path_`). `"auto"`: equal masses: heating. Free masses, which have the
            same answer either way: cooling from the top; up to 3,000 different samples, once there
            are more values than half of them, heating from the lowest temperature.
        tolerance: Free masses: the certificate ln S that every temperature must reach. F is then
            within T ln S of the optimum; for RE, KL and the number of clusters ask 1e-9.
        n_transitions: How many transitions below the top one are located, from the top.
        max_clusters: Free masses on cooling: the path ends where this number is exceeded. None
            means no limit up to 3,000 different samples, else 500.
        n_jobs: Temperatures solved in parallel (free masses), as in joblib. Each is solved on
            one BLAS thread, so that this is the way to use several cores. Where the number of
            clusters ends the path the temperatures wait for each other; then it is the number of
            threads within one, if the row blocks of `working_memory` are used.
        working_memory: MiB for what a second-order step keeps. Free masses: two matrices of
            n x n numbers; where they do not fit, steps in row blocks are taken and the
            certificate is looked for from part of the data: 1,024 points at random and the 4,096
            that are explained worst. It is a lower estimate of ln S then (the attribute `search`
            of `path_["certificate"]` says so), and `converged` that no ascent from there found
            more. Equal masses: the posteriors of all pairs, computed again and again where they do
            not fit. None: scikit-learn's setting.
        progress: Called after every solved temperature with a dict: `done`, `total`,
            `temperature`, `n_clusters`, `stage`.

    Attributes:
        path_: Dataset over `temperature` (ascending): `distortion` (RE, squared error summed over
            the elements), `rate` (KL, nats), `free_energy`, `n_clusters`, `certificate` (ln S;
            nan for equal masses), `converged`. After an interruption: what was solved.
        cooling_path_: The same for the cooling branch, with `direction="both"`.
        stability_temperature_: Top covariance eigenvalue; below it the one-value solution is
            unstable (D2).
        critical_temperatures_: Descending. Free masses: births of decoder values, [0] where one
            value stops being optimal (D9). Equal masses: merges on heating (splits on cooling if
            that is the only direction).
        detected_temperatures_: The paper's detector on `path_`: at most three, highest first.
        transitions_: Dataset over `transition`: `temperature`, `kind`, `distance`, `continuous`,
            `size`, `smaller_part`, `direction`. Its attribute `detector_share` is the share of
            `critical_temperatures_` that the detector finds within one step of the grid.
        labels_: (n_samples,) decoder value of each sample at `temperature_`.
        temperature_: The middle of the longest plateau of the number of clusters (in ln T, two or
            more clusters): the default of `predict`.
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
        direction: Literal["auto", "heating", "cooling", "both"] = "auto",
        tolerance: float = 1e-9,
        n_transitions: int = 10,
        max_clusters: int | None = None,
        n_jobs: int | None = None,
        working_memory: float | None = None,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.masses = masses
        self.temperatures = temperatures
        self.direction = direction
        self.tolerance = tolerance
        self.n_transitions = n_transitions
        self.max_clusters = max_clusters
        self.n_jobs = n_jobs
        self.working_memory = working_memory
        self.progress = progress

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Solve every temperature and locate transitions.

        An interruption leaves in the attributes what was solved, and is raised again. Data in
        single precision are brought to double, in which all results are; single precision serves
        inside only, for steps that decide no result.

        Args:
            X: (n_samples, n_features) data.
            y: Ignored.
            sample_weight: (n_samples,) non-negative weights of the samples in F, RE and KL, as if
                a sample came that often; whole numbers for equal masses.

        Raises:
            ValueError: If `X` has fewer than two samples, NaN, infinite or masked values or zero
                variance, a parameter is out of range, or weights are negative or all zero.
            TypeError: If `X` is sparse, or a parameter has the wrong type.
        """
        self._check_parameters()
        unmasked(X, "X")
        samples: Array = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        weights = self._weights(samples, sample_weight)
        self._forget()
        data = StandardData.from_samples(samples, weights)
        self._data = data
        memory = sklearn.get_config()["working_memory"]
        self._solver = Solver(
            data,
            self.masses,
            float(self.tolerance),
            float(memory if self.working_memory is None else self.working_memory),
        )
        unit = data.temperature_unit
        self.stability_temperature_ = stability_temperature(data) * unit
        limit = top_transition(data)
        self._solver = replace(self._solver, top=limit.temperature)
        self._solutions: dict[float, Solution] = {}
        self._found = top_transitions(data, limit, births=self.masses == "free")
        top = limit.temperature * unit
        grid = temperature_grid(self.temperatures, self.stability_temperature_, top, unit)
        try:
            self._follow(grid)
            self._locate(limit)
        finally:
            if self._solutions:
                self._finish(samples if weights is not None else None)
        return self

    def fit_predict(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> NDArray[np.int64]:
        """Fit, and return `labels_`: the decoder value of each sample at `temperature_`."""
        return self.fit(X, y, sample_weight).labels_

    def predict(self, X: ArrayLike, temperature: float | None = None) -> NDArray[np.int64]:
        """The most probable decoder value of each sample.

        Args:
            X: (n_samples, n_features) data; need not be the data of `fit`.
            temperature: T; None means `temperature_`. Solved now if it is not in `path_`.

        Returns:
            (n_samples,) index of the value, heaviest value first.

        Raises:
            ValueError: If `X` does not have `n_features_in_` features or `temperature` is not
                positive.
        """
        check_is_fitted(self, "path_")
        unmasked(X, "X")
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

    def _check_parameters(self) -> None:
        if self.masses not in ("free", "equal"):
            raise ValueError(f"`masses` must be 'free' or 'equal', got {self.masses!r}.")
        if self.direction not in ("auto", "heating", "cooling", "both"):
            raise ValueError(
                "`direction` must be 'auto', 'heating', 'cooling' or 'both', "
                f"got {self.direction!r}."
            )
        if self.direction == "both" and self.masses == "free":
            raise ValueError(
                "`direction='both'` needs `masses='equal'`: free masses have the same answer in "
                "both directions."
            )
        positive(self.tolerance, "tolerance")
        whole_number(self.n_transitions, "n_transitions", least=0)
        if self.max_clusters is not None:
            whole_number(self.max_clusters, "max_clusters", least=1)
        if self.n_jobs is not None and whole_number(self.n_jobs, "n_jobs", least=-1000) == 0:
            raise ValueError("`n_jobs` must not be 0: pass a number of jobs, or -1 for all cores.")
        if self.progress is not None and not callable(self.progress):
            raise TypeError(
                f"`progress` must be a function of one dict or None, got {self.progress!r}."
            )
        if self.working_memory is not None:
            positive(self.working_memory, "working_memory")

    def _weights(self, samples: Array, given: ArrayLike | None) -> Array | None:
        if given is None:
            return None
        weights = _check_sample_weight(given, samples, dtype=np.float64, ensure_non_negative=True)
        if not weights.sum() > 0.0:
            raise ValueError("`sample_weight` must be positive somewhere, got zeros only.")
        if self.masses == "equal" and not np.array_equal(weights, np.rint(weights)):
            raise ValueError(
                "`sample_weight` must be whole numbers with `masses='equal'`: a sample has one "
                "tile for each time that it comes."
            )
        return np.asarray(weights)

    def _forget(self) -> None:
        """Nothing of an earlier fit stays: it could pass for a result of this one."""
        for name in list(vars(self)):
            of_fit = name.endswith("_") or name in ("_solutions", "_found", "_data", "_solver")
            if of_fit and not name.startswith("__") and name not in _SEEN:
                delattr(self, name)

    def _directions(self) -> tuple[Literal["heating", "cooling", "both ends"], ...]:
        """The branches to follow; the first one is `path_`."""
        if self.direction == "both":
            return ("heating", "cooling")
        if self.direction == "heating" or self.direction == "cooling":
            return (self.direction,)
        if self.masses == "equal":
            return ("heating",)
        small = len(self._data.rows) <= _ALL_CLUSTERS
        return ("both ends",) if small and self.max_clusters is None else ("cooling",)

    def _follow(self, grid: Array) -> None:
        """Solve the grid along the branches asked for."""
        directions = self._directions()
        total = len(grid) * len(directions)
        scaled = grid / self._data.temperature_unit
        users = dict(zip(scaled.tolist(), grid.tolist(), strict=True))
        done = itertools.count(1)

        def keep(solution: Solution) -> None:
            self._solutions[users[solution.temperature]] = solution
            self._report("path", next(done), total, solution)

        def revise(solution: Solution) -> None:
            self._solutions[users[solution.temperature]] = solution

        if directions[0] == "heating" or self.masses == "free":
            limit = self.max_clusters
            if limit is None and directions[0] == "cooling":
                limit = _DEFAULT_CLUSTERS if len(self._data.rows) > _ALL_CLUSTERS else None
            follow(self._solver, scaled, directions[0], limit, self.n_jobs, keep, revise)
        if directions[-1] == "cooling" and self.masses == "equal":
            both = len(directions) == 2

            def cooled(solution: Solution) -> None:
                if both:
                    self._report("cooling", next(done), total, solution)
                else:
                    keep(solution)

            solutions, changes = cool(
                self._data, scaled, self.n_transitions + 1, cooled, self._solver.memory
            )
            self._found.extend(change_transition(self._data, change) for change in changes)
            if both:
                by_user = {users[s.temperature]: s for s in solutions}
                self.cooling_path_: xr.Dataset = path_dataset(by_user, self._data.temperature_unit)

    def _locate(self, limit: OneValueLimit) -> None:
        """Transitions below the top one; what was located stays after an interruption."""
        path = [self._solutions[t] for t in sorted(self._solutions, reverse=True)]
        located = 0
        if self.masses == "free":
            for births, low in births_below(self._solver, path, limit, self.n_transitions):
                self._found.extend(birth_transition(self._data, birth) for birth in births)
                located += len(births)
                self._report("transitions", located, self.n_transitions, low)
        elif self._directions()[0] == "heating":
            number = self.n_transitions + 1
            for merges, low in merges_below(self._solver, path, number):
                self._found.extend(change_transition(self._data, change) for change in merges)
                located += len(merges)
                self._report("transitions", located, number, low)

    def _finish(self, samples: Array | None) -> None:
        """The fitted attributes from what was solved and located; weighted samples anew."""
        unit = self._data.temperature_unit
        self.path_: xr.Dataset = path_dataset(self._solutions, unit)
        kinds = {BIRTH} if self.masses == "free" else {MERGE}
        if self.masses == "equal" and self._directions() == ("cooling",):
            kinds = {SPLIT}
        critical = [t.temperature for t in self._found if t.kind in kinds]
        self.critical_temperatures_: Array = np.sort(np.array(critical, dtype=float))[::-1]
        temperature = self.path_["temperature"].to_numpy()
        self.detected_temperatures_: Array = detect(
            temperature, self.path_["distortion"].to_numpy()
        )
        self.transitions_: xr.Dataset = transitions_dataset(self._found, self.n_features_in_)
        inside = self.critical_temperatures_[
            (self.critical_temperatures_ >= temperature[0])
            & (self.critical_temperatures_ <= temperature[-1])
        ]
        self.transitions_.attrs["detector_share"] = share_found(
            self.detected_temperatures_, inside, temperature
        )
        self.temperature_ = longest_plateau(self.path_)
        if samples is None:
            labels = self._labels(self._data.rows, self.temperature_)[self._data.inverse]
        else:  # some may have no weight, and so no row of their own
            labels = self._labels(self._data.to_standard(samples), self.temperature_)
        self.labels_: NDArray[np.int64] = np.unique(labels, return_inverse=True)[1].reshape(-1)

    def _labels(self, rows: Array, temperature: float) -> NDArray[np.int64]:
        scaled = temperature / self._data.temperature_unit
        return most_probable(rows, self._at(temperature).mixture, scaled)

    def _at(self, temperature: float) -> Solution:
        check_is_fitted(self, "_solutions")
        wanted = positive(temperature, "temperature")
        known = self._solutions.get(wanted)
        if known is not None:
            return known
        return self._solver.solve(wanted / self._data.temperature_unit, self._neighbour(wanted))

    def _neighbour(self, temperature: float) -> Mixture:
        """The solution to start from at a temperature that is not on the path."""
        grid = np.array(list(self._solutions))
        heating = self._directions()[0] == "heating"
        before = grid[grid < temperature] if heating else grid[grid > temperature]
        if len(before):
            return self._solutions[float(before.max() if heating else before.min())].mixture
        return self._solver.all_data() if heating else self._solver.one_value()

    def _report(self, stage: str, done: int, total: int, solution: Solution) -> None:
        if self.progress is not None:
            self.progress(
                {
                    "stage": stage,
                    "done": done,
                    "total": total,
                    "temperature": solution.temperature * self._data.temperature_unit,
                    "n_clusters": solution.mixture.size,
                }
            )
