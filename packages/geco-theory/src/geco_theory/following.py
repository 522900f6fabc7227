"""Solving a list of temperatures: warm starts in order, or in parallel stretches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from geco_theory.equal_masses import solve_equal
from geco_theory.free_masses import solve_free
from geco_theory.mixtures import Mixture
from geco_theory.solutions import Solution
from geco_theory.standard_data import Array, StandardData

Report = Callable[[Solution], None]


@dataclass(frozen=True)
class Solver:
    """How one temperature is solved.

    Args:
        data: The data.
        masses: `free` or `equal`.
        tolerance: The certificate to reach (free masses).
        memory: MiB for the matrices of a Newton step.
        workers: Threads within one temperature, where Newton steps do not fit into the memory.
    """

    data: StandardData
    masses: Literal["free", "equal"]
    tolerance: float
    memory: float
    workers: int = 1

    def solve(self, temperature: float, start: Mixture) -> Solution:
        """Solve one temperature, in standard units, from `start`."""
        if self.masses == "free":
            return solve_free(
                self.data,
                temperature,
                start,
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
    direction: Literal["heating", "cooling"],
    max_clusters: int | None,
    n_jobs: int | None,
    report: Report,
) -> None:
    """Solve all temperatures and report each as soon as it is solved.

    Args:
        solver: How one temperature is solved.
        temperatures: (t,) in standard units, ascending.
        direction: The order. Free masses have the same answer either way.
        max_clusters: Cooling stops below the temperature where this number is exceeded.
        n_jobs: Stretches of temperatures solved at a time, or where the number of clusters ends
            the path, threads within one temperature (free masses only).
        report: Called with every solution.
    """
    order = temperatures if direction == "heating" else temperatures[::-1]
    start = solver.all_data() if direction == "heating" else solver.one_value()
    jobs = effective_n_jobs(n_jobs) if solver.masses == "free" else 1
    if jobs > 1 and len(order) > 1 and max_clusters is None:
        # more stretches than workers: the temperatures in the middle cost the most
        stretches = np.array_split(order, min(3 * jobs, len(order)))
        parts: Iterator[list[Solution]] = Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(solver.sequence)(stretch, start) for stretch in stretches
        )
        for part in parts:
            for solution in part:
                report(solution)
        return
    solver = replace(solver, workers=jobs)
    for temperature in order:
        solution = solver.solve(float(temperature), start)
        start = solution.mixture
        report(solution)
        if max_clusters is not None and start.size > max_clusters:
            break
