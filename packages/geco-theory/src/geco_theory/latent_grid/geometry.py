r"""Blur and holes: the geometry of a solved latent grid, after Figure 1.

Where the posteriors of several data points overlap, the best reconstruction is their weighted
mean (Eq. (4)) and lies off the data: blur. Where the marginal posterior :math:`\bar q` has little
of the prior's mass, hardly any data point asks for anything, and the reconstruction is
unconstrained: a hole. How both are measured is this project's choice:

- overlap of a data point's posterior with the others',
  :math:`\sum_a q_i(a) \, (1 - w_i(a))` with :math:`w_i(a) = q_i(a) / \sum_j q_j(a)`: the
  probability that a location drawn from it would be attributed to another data point;
- effective number of data points at a location, :math:`\exp(-\sum_i w_i(a) \ln w_i(a))`;
- blur at a location: the root-mean-square distance of the data from their weighted mean there;
- density ratio :math:`\ln \bar q(a) / \pi(a)`, and the hole: where the ratio is under a threshold;
- freedom at a location, :math:`\sqrt{2 T \pi(a) / \bar q(a)}`: how far the reconstruction can move
  before it costs T per unit of prior mass: :math:`\sqrt{2T}` where :math:`\bar q = \pi`.
"""

import math

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_array

from geco_theory._typing import Array
from geco_theory.latent_grid.errors import AbstractGridError, SquaredError
from geco_theory.latent_grid.fixed_points import GridProblem, nearest_distances
from geco_theory.latent_grid.grid import LatentGrid
from geco_theory.validation import positive, unmasked

__all__ = ["latent_geometry"]


def latent_geometry(
    X: ArrayLike,
    solution: xr.Dataset,
    *,
    error: AbstractGridError | None = None,
    hole_threshold: float = 0.1,
    block_bytes: int = 2**26,
    memory_limit: float | None = None,
) -> xr.Dataset:
    r"""Measure overlaps, blur and holes of a decoder on a latent grid.

    Args:
        X: the data (n, d) that the solution was found for.
        solution: what `solve_latent_grid` returned, converged or not: the posteriors are those
            of its decoder values (Eq. (5)).
        error: the reconstruction error it was solved with, by default `SquaredError()`.
        hole_threshold: a cell belongs to a hole where
            ``marginal_posterior / prior_mass < hole_threshold``.
        block_bytes: the size of one block of posteriors.
        memory_limit: bytes that may be taken; by default half of the free memory.

    Returns:
        A dataset over ``cell`` and ``datum``. Per cell: ``effective_points``, ``largest_weight``,
        ``owner`` (the data point of largest weight), ``blur``, ``nearest_distance`` (of the
        reconstruction from the nearest data point), ``log_density_ratio``, ``freedom``,
        ``hole``. Per data point: ``overlap``, ``kl`` (nats), ``neighbour_distance``. Scalars:
        ``mean_overlap``, ``mean_effective_points`` and ``mean_blur`` (under the marginal
        posterior), ``hole_mass`` (prior mass of the holes), ``hole_distance`` and
        ``elsewhere_distance`` (prior-weighted mean distance of the reconstructions from the
        nearest data point in the holes and outside; NaN where there is no such place) and
        ``typical_distance`` (the median distance between neighbours in the data, to compare with).

    Raises:
        ValueError: `solution` is not one of `solve_latent_grid` or not of this data's width.
        TypeError: an argument of the wrong type.
    """
    unmasked(X, "X")
    data = np.asarray(check_array(X, dtype=np.float64, ensure_min_samples=2, input_name="X"))
    threshold = positive(hole_threshold, "hole_threshold")
    grid = grid_of(solution)
    decoder = np.asarray(solution["decoder"].values, dtype=np.float64)
    if decoder.shape[1] != data.shape[1]:
        raise ValueError(
            f"`X` must have the {decoder.shape[1]} features of the solution, got {data.shape[1]}."
        )
    kind = SquaredError() if error is None else error
    multiplier = float(solution["multiplier"])
    problem = GridProblem(data, grid, kind, multiplier, 0.0, block_bytes, memory_limit)
    sweep = problem.sweep(decoder)

    n, cells = data.shape[0], grid.cells
    entropy, owner_weight = np.zeros(cells), np.full(cells, -1.0)
    owner = np.zeros(cells, dtype=np.int64)
    square, mean = np.zeros(cells), np.zeros_like(decoder)
    overlap, kl = np.empty(n), np.empty(n)
    centre = data.mean(axis=0)
    for rows, log_q in problem.posteriors(sweep):
        weights = np.exp(log_q - sweep.log_marginal - math.log(n))
        q = np.exp(log_q)
        x = data[rows] - centre
        entropy -= xlogy(weights, weights).sum(axis=0)
        square += weights.T @ np.einsum("bd,bd->b", x, x)
        mean += weights.T @ x
        overlap[rows] = np.maximum(0.0, 1.0 - np.einsum("bm,bm->b", q, weights))
        kl[rows] = np.einsum("bm,bm->b", q, log_q - grid.log_mass)
        best = weights.argmax(axis=0)
        found = weights[best, np.arange(cells)]
        better = found > owner_weight
        owner[better] = best[better] + rows.start
        owner_weight[better] = found[better]
    blur = np.sqrt(np.maximum(square - np.einsum("md,md->m", mean, mean), 0.0))
    log_ratio = sweep.log_marginal - grid.log_mass
    nearest = nearest_distances(data, decoder)
    hole = log_ratio < math.log(threshold)
    prior, marginal = np.exp(grid.log_mass), np.exp(sweep.log_marginal)
    neighbours = NearestNeighbors(n_neighbors=2).fit(data).kneighbors(data)[0][:, 1]
    effective = np.exp(entropy)
    with np.errstate(over="ignore"):
        freedom = np.sqrt(2.0 * problem.temperature) * np.exp(-0.5 * log_ratio)

    def per(what: str, values: object, long_name: str, units: str = "") -> object:
        attrs = {"long_name": long_name} | ({"units": units} if units else {})
        return ((what,) if what else (), values, attrs)

    data_units = "data units"
    variables = {
        "effective_points": per("cell", effective, "effective number of data points"),
        "largest_weight": per("cell", owner_weight, "largest weight of a data point"),
        "owner": per("cell", owner, "data point of largest weight"),
        "blur": per("cell", blur, "spread of the data averaged here", data_units),
        "nearest_distance": per("cell", nearest, "distance from the nearest datum", data_units),
        "log_density_ratio": per("cell", log_ratio, "ln marginal posterior / prior", "nats"),
        "freedom": per("cell", freedom, "freedom of the reconstruction", data_units),
        "hole": per("cell", hole, "part of a hole"),
        "decoder": (("cell", "feature"), decoder, {"long_name": "decoder value g(z)"}),
        "prior_mass": per("cell", prior, "prior mass"),
        "marginal_posterior": per("cell", marginal, "marginal posterior mass"),
        "overlap": per("datum", overlap, "overlap with the other posteriors"),
        "kl": per("datum", kl, "KL of the posterior", "nats"),
        "neighbour_distance": per("datum", neighbours, "distance to its neighbour", data_units),
        "mean_overlap": per("", overlap.mean(), "mean overlap of the posteriors"),
        "mean_effective_points": per("", marginal @ effective, "mean effective number of points"),
        "mean_blur": per("", marginal @ blur, "mean blur", data_units),
        "hole_mass": per("", prior[hole].sum(), "prior mass of the holes"),
        "hole_distance": per("", _average(nearest, prior, hole), "in the holes", data_units),
        "elsewhere_distance": per("", _average(nearest, prior, ~hole), "elsewhere", data_units),
        "typical_distance": per("", np.median(neighbours), "typical distance", data_units),
        "temperature": per("", problem.temperature, "temperature", "squared data units"),
    }
    attrs = {"grid_shape": list(grid.shape), "hole_threshold": threshold}
    return xr.Dataset(variables, solution["decoder"].coords, attrs)


def grid_of(solution: xr.Dataset) -> LatentGrid:
    """The latent grid that a solution was found on.

    Raises:
        ValueError: `solution` is not one of `solve_latent_grid`.
    """
    needed = {"decoder", "log_prior_mass", "multiplier", "latent_1"}
    if not needed <= set(getattr(solution, "variables", ())):
        raise ValueError(
            f"`solution` must be a dataset that solve_latent_grid returned, "
            f"got {type(solution).__name__} without all of {sorted(needed)}."
        )
    names = [name for name in ("latent_1", "latent_2") if name in solution.coords]
    nodes = np.stack([solution[name].values for name in names], axis=1)
    ticks = [np.unique(nodes[:, k]) for k in range(nodes.shape[1])]
    return LatentGrid(
        nodes=nodes,
        log_mass=np.asarray(solution["log_prior_mass"].values, dtype=np.float64),
        shape=tuple(t.size for t in ticks),
        edges=tuple(0.5 * (t[1:] + t[:-1]) for t in ticks),
    )


def _average(values: Array, weights: Array, where: NDArray[np.bool_]) -> float:
    """A weighted mean over some cells; NaN where there are none."""
    total = float(weights[where].sum())
    return float((values[where] * weights[where]).sum() / total) if total > 0 else math.nan
