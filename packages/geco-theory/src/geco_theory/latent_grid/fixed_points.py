r"""Fixed points of Eqs. (3)-(6) on a latent grid.

With prior masses :math:`\pi_a`, decoder values :math:`\psi_a` and
:math:`H_{ia} = \lambda C(x_i, \psi_a)` (for the squared error
:math:`\|x_i - \psi_a\|^2 / 2T`, Eq. (3)) one iteration takes the posteriors
:math:`q_i(a) \propto \pi_a e^{-H_{ia}}` (Eq. (5)) and then the decoder values that solve
Eq. (6) under them. It never raises

.. math:: F = -T \, \tfrac1n \sum_i \ln \sum_a \pi_a e^{-H_{ia}} ,

which is checked. Plain iterations slow down near a critical temperature, where a small step says
nothing about the distance to the solution. So they alternate with Newton steps, found by
conjugate gradients (Steihaug 1983) in the inner product weighted by the cells' posterior mass,
and the solver stops when the whole Newton step is below the tolerance and no negative curvature
was met: negative curvature means a saddle (a merge or a split under way), never a solution.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from geco_theory._typing import Array
from geco_theory.conjugate_gradients import ConjugateGradients
from geco_theory.latent_grid.errors import AbstractGridError, SquaredError
from geco_theory.latent_grid.grid import LatentGrid
from geco_theory.linalg import squared_distances
from geco_theory.memory import require_memory

__all__ = ["GridProblem", "NewtonStep", "Sweep"]

# cells with less posterior mass than this (relative) count as if they had it in inner products
FLOOR = 1e-12


@dataclass(frozen=True)
class Sweep:
    """One pass over the data at fixed decoder values."""

    free_energy: float
    distortion: float  # the mean error E C, without the tolerance
    log_partition: Array  # ln Z_i (n,)
    log_marginal: Array  # ln qbar(a) (m,)
    represented: Array
    statistic: Array  # of the error, under the normalised weights w_i(a)
    residual: Array  # the left side of Eq. (6) (m, d)


@dataclass(frozen=True)
class NewtonStep:
    """An approximate Newton step and what it says about the solution."""

    step: Array
    solved: bool  # to the relative residual asked for
    negative_curvature: bool


class GridProblem:
    """The data, the grid and the error at one temperature; every pass goes in row blocks.

    Args:
        X: data (n, d), float64.
        grid: the latent grid.
        error: the reconstruction error.
        multiplier: lambda, of the error as the mean over its elements; None to take it from the
            temperature, elements / (2 temperature).
        temperature: the temperature; ignored where `multiplier` is given.
        block_bytes: the largest size of one block of posteriors.
        memory_limit: bytes that may be taken; None for half of what is free.
    """

    def __init__(
        self,
        X: Array,
        grid: LatentGrid,
        error: AbstractGridError,
        multiplier: float | None,
        temperature: float,
        block_bytes: int,
        memory_limit: float | None,
    ) -> None:
        n, d = X.shape
        cells = grid.cells
        rows = max(1, min(n, int(block_bytes // (8 * cells))))
        require_memory(
            8.0 * (14.0 * cells * d + 4.0 * rows * cells + 2.0 * n * d),
            f"a grid of {' x '.join(map(str, grid.shape))} cells with {d} features",
            memory_limit,
        )
        self.grid = grid
        self.error = error
        self.prepared = error.prepare(X)
        self.elements = error.elements(self.prepared)
        if multiplier is not None:
            self.multiplier = multiplier
            self.temperature = self.elements / (2.0 * multiplier)
        else:
            self.temperature = temperature
            self.multiplier = self.elements / (2.0 * self.temperature)
        self.n = n
        self.blocks = [slice(i, min(i + rows, n)) for i in range(0, n, rows)]

    def sweep(self, decoder: Array) -> Sweep:
        """Eq. (5) and the statistics for Eq. (6), in one pass and in the log domain."""
        represented = self.error.represent(decoder)
        cells = self.grid.cells
        top = np.full(cells, -np.inf)
        mass = np.zeros(cells)
        total: Array | None = None
        log_partition = np.empty(self.n)
        distortion = 0.0
        for rows in self.blocks:
            errors = self.error.pairwise(self.prepared[rows], represented)
            logits = self.grid.log_mass - self.multiplier * errors
            peak = logits.max(axis=1, keepdims=True)
            weights = np.exp(logits - peak)
            sums = weights.sum(axis=1, keepdims=True)
            log_partition[rows] = (peak + np.log(sums))[:, 0]
            distortion += float(((weights * errors).sum(axis=1) / sums[:, 0]).sum())
            logits -= log_partition[rows, None]
            # each cell's weights relative to the largest so far: no cell ever underflows to 0/0
            higher = np.maximum(top, logits.max(axis=0))
            shrink = np.exp(top - higher)
            np.exp(logits - higher, out=weights)
            part = self.error.accumulate(self.prepared[rows], represented, weights)
            mass = mass * shrink + weights.sum(axis=0)
            total = part if total is None else total * shrink[:, None] + part
            top = higher
        statistic = np.zeros((cells, 0)) if total is None else total / mass[:, None]
        return Sweep(
            free_energy=-self.temperature * float(log_partition.mean()),
            distortion=distortion / self.n,
            log_partition=log_partition,
            log_marginal=top + np.log(mass) - np.log(self.n),
            represented=represented,
            statistic=statistic,
            residual=self.error.residual(decoder, represented, statistic),
        )

    def posteriors(self, sweep: Sweep) -> Iterator[tuple[slice, Array]]:
        """The posteriors' logarithms ln q_i(a), block by block: (rows, (b, m))."""
        for rows in self.blocks:
            errors = self.error.pairwise(self.prepared[rows], sweep.represented)
            logits = self.grid.log_mass - self.multiplier * errors
            yield rows, logits - sweep.log_partition[rows, None]

    def improve(self, decoder: Array, sweep: Sweep) -> Array:
        """Eq. (6): decoder values under the posteriors of the sweep."""

        def weighted(values: Array) -> tuple[Array, Array]:
            represented = self.error.represent(values)
            cost = np.zeros(self.grid.cells)
            slope: Array | None = None
            for rows, logs in self.posteriors(sweep):
                weights = np.exp(logs - sweep.log_marginal - np.log(self.n))
                errors = self.error.pairwise(self.prepared[rows], represented)
                cost += (weights * errors).sum(axis=0)
                part = self.error.accumulate(self.prepared[rows], represented, weights)
                slope = part if slope is None else slope + part
            statistic = np.zeros_like(values) if slope is None else slope
            return cost, self.error.residual(values, represented, statistic)

        return self.error.solve(decoder, sweep.represented, sweep.statistic, weighted)

    def curvature(self, decoder: Array, sweep: Sweep, direction: Array) -> Array:
        """The derivative of (mass x residual) along a direction, over the mass (m, d)."""
        if isinstance(self.error, SquaredError):
            return self._squared_curvature(decoder, sweep, direction)
        size = float(np.abs(direction).max())
        if size == 0.0:
            return np.zeros_like(direction)
        h = 6e-6 * (1.0 + float(np.abs(decoder).max())) / size
        ahead, behind = self.sweep(decoder + h * direction), self.sweep(decoder - h * direction)
        up = np.exp(ahead.log_marginal - sweep.log_marginal)[:, None] * ahead.residual
        down = np.exp(behind.log_marginal - sweep.log_marginal)[:, None] * behind.residual
        return np.asarray((up - down) / (2.0 * h))

    def _squared_curvature(self, decoder: Array, sweep: Sweep, direction: Array) -> Array:
        """The same in closed form, at the price of one sweep without its second exponential."""
        found = np.zeros_like(decoder)
        column = np.zeros(self.grid.cells)
        offset = np.einsum("md,md->m", decoder, direction)
        for rows, logs in self.posteriors(sweep):
            x = self.prepared[rows]
            along = x @ direction.T - offset
            mean = np.einsum("bm,bm->b", np.exp(logs), along)
            weights = np.exp(logs - sweep.log_marginal - np.log(self.n))
            weights *= along - mean[:, None]
            found += weights.T @ x
            column += weights.sum(axis=0)
        coupling = (found - column[:, None] * decoder) / self.temperature
        return np.asarray(2.0 / self.elements * (direction - coupling))

    def newton_step(
        self, decoder: Array, sweep: Sweep, *, accuracy: float, steps: int
    ) -> NewtonStep:
        """Conjugate gradients on the Newton equation; stops where the curvature is negative."""
        mass = np.exp(sweep.log_marginal)
        weight = np.maximum(mass, FLOOR * mass.max())[:, None]
        step = np.zeros_like(decoder)
        solver = ConjugateGradients(
            lambda v: self.curvature(decoder, sweep, v),
            lambda u, v: float((weight * u * v).sum()),
            -sweep.residual,
        )
        largest = float(np.abs(sweep.residual).max())
        if solver.square == 0.0:
            return NewtonStep(step, solved=True, negative_curvature=False)
        for _ in range(steps):
            curved, size = solver.curvature()
            if curved <= 1e-14 * size * 2.0 / self.elements:
                return NewtonStep(step, solved=False, negative_curvature=True)
            step += solver.advance(curved)
            # judged cell by cell: cells of little mass must be solved as well
            small = float(np.abs(solver.residual).max()) <= accuracy * largest
            if small or solver.square == 0.0:
                return NewtonStep(step, solved=True, negative_curvature=False)
        return NewtonStep(step, solved=False, negative_curvature=False)

    def rate(self, sweep: Sweep) -> float:
        """The mean KL in nats: (F - T lambda E C) / T, for then no n x m logarithm is needed."""
        return max(0.0, sweep.free_energy / self.temperature - self.multiplier * sweep.distortion)


def nearest_distances(X: Array, values: Array, block_bytes: int = 2**26) -> Array:
    """The distance of each value (m, d) from its nearest row of X."""
    rows = max(1, int(block_bytes // (8 * max(1, values.shape[0]))))
    best = np.full(values.shape[0], np.inf)
    for start in range(0, X.shape[0], rows):
        part = squared_distances(X[start : start + rows], values)
        np.minimum(best, part.min(axis=0), out=best)
    return np.asarray(np.sqrt(best))
