"""Solving a list of temperatures: warm starts in order, or in parallel stretches."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal

import numpy as np
import xarray as xr
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import ArrayLike

from geco_theory._typing import Array
from geco_theory.deterministic_annealing.solver import solve_equal
from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.solution import Solution
from geco_theory.npmle.solver import solve_free
from geco_theory.validation import whole_number

Report = Callable[[Solution], None]
_MOST_REVISIONS = 4  # of each temperature
_DEFAULT_NUMBER = 40
_COLDEST = 1e-200  # in units of the total variance
_COLD = 0.5  # of the top transition: below it a path does not begin at one value
_MANY = 0.5  # of the samples: values from which on heating begins at the other end
_LOWEST = 1 / 30  # of the stability temperature
_ABOVE_TOP = 1.05  # times the top transition
SAMPLED = "from a sample of the data: a lower estimate of ln S, not a bound on the error of F"


@dataclass(frozen=True)
class Solver:
    """How one temperature is solved.

    Args:
        data: The data.
        masses: `free` or `equal`.
        tolerance: The certificate to reach (free masses).
        memory: MiB for the matrices of a Newton step.
        workers: Threads within one temperature, where Newton steps do not fit into the memory.
        top: Temperature from which on one value is the optimum (free masses), in standard units.
    """

    data: StandardData
    masses: Literal["free", "equal"]
    tolerance: float
    memory: float
    workers: int = 1
    top: float = float("inf")

    def solve(self, temperature: float, start: Mixture) -> Solution:
        """Solve one temperature, in standard units, from `start`."""
        if self.masses == "free":
            return solve_free(
                self.data,
                temperature,
                self.one_value() if temperature >= self.top else start,
                tolerance=self.tolerance,
                memory=self.memory,
                workers=self.workers,
            )
        return solve_equal(self.data, temperature, start, memory=self.memory)

    def all_data(self) -> Mixture:
        """One value per data point: where heating begins."""
        return Mixture(self.data.rows.copy(), self.data.weights.copy())

    def one_value(self) -> Mixture:
        """All mass on the mean: where cooling begins."""
        return Mixture(np.zeros((1, self.data.rows.shape[1])), np.ones(1))

    def sequence(self, temperatures: Array, start: Mixture) -> list[Solution]:
        """Solve temperatures one after the other, each from the one before."""
        solutions = []
        for temperature in temperatures:
            solutions.append(self.solve(float(temperature), start))
            start = solutions[-1].mixture
        return solutions


def follow(
    solver: Solver,
    temperatures: Array,
    direction: Literal["heating", "cooling", "both ends"],
    max_clusters: int | None,
    n_jobs: int | None,
    report: Report,
    revise: Report,
) -> None:
    """Solve all temperatures and report each as soon as it is solved.

    Args:
        solver: How one temperature is solved.
        temperatures: (t,) in standard units, ascending.
        direction: The order. Free masses have the same answer either way. `both ends`: cooling
            until there are more values than half of the samples, then heating from the lowest
            temperature, where one value per sample is nearly the answer.
        max_clusters: Cooling stops below the temperature where this number is exceeded.
        n_jobs: Stretches of temperatures solved at a time, or where the number of clusters ends
            the path, threads within one temperature (free masses only).
        report: Called with every solution.
        revise: Called with solutions that replace others, see `lowered`.
    """
    solved: list[Solution] = []
    jobs = effective_n_jobs(n_jobs) if solver.masses == "free" else 1
    if direction == "both ends" and (jobs > 1 or temperatures[-1] < _COLD * solver.top):
        direction = "heating"  # stretches need no order; where all is cold there are many values
    order = temperatures if direction == "heating" else temperatures[::-1]
    start = solver.all_data() if direction == "heating" else solver.one_value()
    many = _MANY * len(solver.data.rows) if direction == "both ends" else np.inf
    if jobs > 1 and len(order) > 1 and max_clusters is None:
        # more stretches than workers: the temperatures in the middle cost the most
        stretches = np.array_split(order, min(3 * jobs, len(order)))
        parts: Iterator[list[Solution]] = Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(solver.sequence)(stretch, start) for stretch in stretches
        )
        for part in parts:
            for solution in part:
                solved.append(solution)
                report(solution)
    else:
        solver = replace(solver, workers=jobs)
        left = list(order)
        while left:
            solution = solver.solve(float(left.pop(0)), start)
            start = solution.mixture
            solved.append(solution)
            report(solution)
            if max_clusters is not None and start.size > max_clusters:
                break
            if start.size > many:
                left, start, many = left[::-1], solver.all_data(), np.inf
    if solver.masses == "free":
        for solution in lowered(solver, solved):
            revise(solution)


def lowered(solver: Solver, solutions: list[Solution]) -> Iterator[Solution]:
    """Solutions that replace those above which a neighbour's mixture has a lower free energy.

    At the optimum none has. This needs no search for a supremum, so it notices a maximum of D that
    every ascent has missed.

    Args:
        solver: How one temperature is solved.
        solutions: Of free masses, in any order.
    """
    path = sorted(solutions, key=lambda solution: solution.temperature)
    pending = {(i, j) for i in range(len(path)) for j in (i - 1, i + 1) if 0 <= j < len(path)}
    revisions = 0
    while pending and revisions < _MOST_REVISIONS * len(path):
        i, j = pending.pop()
        here, start = path[i], path[j].mixture
        state = moments(solver.data, start, here.temperature)
        missing = (here.free_energy - state.free_energy) / here.temperature
        if missing <= solver.tolerance + 10 * state.rounding:
            continue
        better = solver.solve(here.temperature, start)
        if better.free_energy >= here.free_energy:
            continue
        revisions += 1
        path[i] = better
        pending |= {(k, i) for k in (i - 1, i + 1) if 0 <= k < len(path)}
        yield better


def temperature_grid(
    wanted: int | ArrayLike | None, stability: float, top: float, unit: float = 1.0
) -> Array:
    """The temperatures to solve, ascending.

    Args:
        wanted: Strictly monotone positive temperatures, or how many, or None.
        stability: The stability temperature of the one-value solution.
        top: The temperature of the top transition.
        unit: The total variance, beside which temperatures must not vanish.

    Raises:
        ValueError: If `wanted` is neither.
    """
    if wanted is None:
        wanted = _DEFAULT_NUMBER
    if isinstance(wanted, Integral | bool):
        number = whole_number(wanted, "temperatures", least=2)
        return np.geomspace(stability * _LOWEST, _ABOVE_TOP * top, number)
    grid = np.asarray(wanted, dtype=np.float64)
    if grid.ndim != 1 or not len(grid) or not np.all(np.isfinite(grid) & (grid > 0)):
        raise ValueError(
            "`temperatures` must be positive finite numbers in one dimension, or how many of "
            f"them, got {wanted!r}."
        )
    steps = np.diff(grid)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise ValueError(
            "`temperatures` must be strictly ascending or strictly descending: sort them and drop "
            "repeated ones."
        )
    grid = np.sort(grid)
    if not (grid[0] / unit > _COLDEST and grid[-1] / unit < 1.0 / _COLDEST):
        raise ValueError(
            f"`temperatures` must lie between {_COLDEST:g} and {1.0 / _COLDEST:g} times the total "
            f"variance, got {grid[0]:.3g} to {grid[-1]:.3g} for a variance of {unit:.3g}."
        )
    return grid


def longest_plateau(path: xr.Dataset) -> float:
    """The middle temperature of the longest run of one cluster count, at least two clusters.

    The run at the low end does not count if there the clusters are the most of all.
    """
    temperatures = path["temperature"].to_numpy()
    counts = path["n_clusters"].to_numpy()
    best, chosen = -1.0, float(temperatures[0])
    begin = 0
    for count, run in itertools.groupby(counts):
        end = begin + len(list(run))
        if count >= 2 and not (begin == 0 and count == counts.max() and count > 2):
            length = float(np.log(temperatures[end - 1] / temperatures[begin]))
            if length > best:
                best, chosen = length, float(temperatures[(begin + end - 1) // 2])
        begin = end
    return chosen


def path_dataset(solutions: Mapping[float, Solution], unit: float) -> xr.Dataset:
    """The path over `temperature`, ascending.

    Args:
        solutions: Solved temperatures, in standard units, by temperature in the user's units.
        unit: The user's temperature that is 1 in standard units.
    """
    temperatures = sorted(solutions)
    rows = [solutions[t] for t in temperatures]
    dim = "temperature"
    dataset = xr.Dataset(
        {
            "distortion": (dim, np.array([s.distortion for s in rows]) * unit),
            "rate": (dim, np.array([s.rate for s in rows])),
            "free_energy": (dim, np.array([s.free_energy for s in rows]) * unit),
            "n_clusters": (dim, np.array([s.mixture.size for s in rows], dtype=np.int64)),
            "certificate": (dim, np.array([s.certificate for s in rows])),
            "converged": (dim, np.array([s.converged for s in rows], dtype=bool)),
        },
        coords={dim: np.array(temperatures)},
    )
    squared = "(data unit)^2"
    attributes = {
        "temperature": (squared, "temperature T = beta sigma^2"),
        "distortion": (squared, "RE: expected squared error, summed over the elements"),
        "rate": ("nat", "KL: expected divergence of the posterior from the prior"),
        "free_energy": (squared, "F = RE/2 + T KL"),
        "n_clusters": ("1", "K: number of distinct decoder values"),
        "certificate": ("1", "ln S: F is at most T ln S above the global optimum (D9)"),
        "converged": ("1", "whether the tolerance was reached"),
    }
    for name, (units, long_name) in attributes.items():
        dataset[name].attrs = {"units": units, "long_name": long_name}
    if any(s.sampled for s in rows):
        dataset["certificate"].attrs["search"] = SAMPLED
    return dataset
