r"""`solve_latent_grid`: Eqs. (3)-(6) on a latent grid, solved to a stated error."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from sklearn.utils import check_array, check_random_state

from geco_theory._typing import Array
from geco_theory.latent_grid.errors import AbstractGridError, SquaredError
from geco_theory.latent_grid.fixed_points import GridProblem, Sweep
from geco_theory.latent_grid.grid import LatentGrid
from geco_theory.linalg import principal_axes
from geco_theory.validation import positive, unmasked, whole_number

__all__ = ["solve_latent_grid"]

Start = Literal["principal"] | ArrayLike | Callable[[Array], ArrayLike]
PLAIN_STEPS = 5  # plain iterations before each Newton step
CONJUGATE_STEPS = 200
HALVINGS = 6


def solve_latent_grid(
    X: ArrayLike,
    grid: LatentGrid,
    *,
    temperature: float | None = None,
    multiplier: float | None = None,
    error: AbstractGridError | None = None,
    start: Start = "principal",
    jitter: float = 1e-3,
    tol: float = 1e-8,
    max_iter: int = 2000,
    newton: bool = True,
    keep_trajectory: bool = False,
    block_bytes: int = 2**26,
    memory_limit: float | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> xr.Dataset:
    r"""Solve the fixed-point equations on a latent grid (Eqs. (3)-(6)).

    Args:
        X: data (n, d).
        grid: the latent space, from `gaussian_grid`.
        temperature: :math:`T = \beta \sigma^2`, in squared units of the data (for `FeatureError`:
            of the features), as in Eq. (3). Give this or `multiplier`.
        multiplier: :math:`\lambda` of Eq. (5), of the error as a mean over its elements:
            :math:`d / 2T` (D1).
        error: the reconstruction error, by default `SquaredError()`.
        start: the decoder before the first iteration: ``"principal"`` (a linear map onto the
            first principal axes, one standard deviation of the data for one of the latent space),
            values (cells, d), or a function of the nodes (cells, dimensions) that gives them.
        jitter: noise on the start, relative to the data's root-mean-square size. A start with a
            symmetry of the data would lead to a saddle. 0 for none.
        tol: the largest error of a decoder value at the solution, relative to the data's
            root-mean-square distance from their mean.
        max_iter: the largest number of iterations, plain and Newton together; 0 keeps the start.
        newton: whether to take Newton steps; without them, the plain iteration of the paper runs
            until the Newton step, still computed now and then, is below `tol`.
        keep_trajectory: whether to return the decoder values of every iteration.
        block_bytes: the size of one block of posteriors; the n x cells matrix is never formed.
        memory_limit: bytes that may be taken; by default half of the free memory.
        random_state: of the jitter.

    Returns:
        A dataset over ``cell`` (coordinates ``latent_1`` and, in two dimensions, ``latent_2``)
        and ``feature``: ``decoder``, ``prior_mass``, ``marginal_posterior`` with their
        logarithms, ``free_energy`` over ``iteration``, the scalars ``temperature``,
        ``multiplier``, ``distortion`` (the mean error, without its tolerance), ``rate`` (mean
        KL, nats), ``marginal_kl`` (KL of the marginal posterior from the prior, nats),
        ``solution_error`` (the size of the last Newton step, relative), ``converged``; and
        ``trajectory`` (iteration, cell, feature) if asked for.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: data, start or tolerances out of range, neither or both of `temperature` and
            `multiplier`, or a grid that would not fit in memory.
        RuntimeError: the free energy rose, so the error's gradient does not belong to its value.
    """
    unmasked(X, "X")
    data = np.asarray(check_array(X, dtype=np.float64, ensure_min_samples=2, input_name="X"))
    if (temperature is None) == (multiplier is None):
        raise ValueError("give either `temperature` or `multiplier`, not both and not neither.")
    heat = 0.0 if temperature is None else positive(temperature, "temperature")
    multiplier = None if multiplier is None else positive(multiplier, "multiplier")
    tolerance = positive(tol, "tol")
    iterations = whole_number(max_iter, "max_iter", least=0)
    kind = SquaredError() if error is None else error
    if not isinstance(kind, AbstractGridError):
        raise TypeError(
            f"`error` must be SquaredError(), FeatureError(...) or DifferentiableError(...), "
            f"got {type(error).__name__}."
        )
    problem = GridProblem(data, grid, kind, multiplier, heat, block_bytes, memory_limit)
    spread = float(np.sqrt(np.mean(np.square(data - data.mean(axis=0)).sum(axis=1))))
    unit = spread or 1.0
    decoder = _start(start, data, grid)
    if jitter:
        size = positive(jitter, "jitter") * unit / np.sqrt(data.shape[1])
        decoder = decoder + size * check_random_state(random_state).normal(size=decoder.shape)

    sweep = problem.sweep(decoder)
    energies = [sweep.free_energy]
    trajectory = [decoder] if keep_trajectory else []
    distance, converged = np.inf, False
    since_newton = 0
    while len(energies) <= iterations and not converged:
        if since_newton < (PLAIN_STEPS if newton else 10 * PLAIN_STEPS):
            decoder = problem.improve(decoder, sweep)
            sweep = _checked(problem.sweep(decoder), sweep)
            since_newton += 1
        else:
            since_newton = 0
            move = problem.newton_step(decoder, sweep, accuracy=1e-4, steps=CONJUGATE_STEPS)
            if move.solved:
                distance = float(np.sqrt(np.square(move.step).sum(axis=1).max())) / unit
                converged = distance <= tolerance
            if not (newton or converged) or not np.abs(move.step).max() > 0:
                continue
            found = _line_search(problem, decoder, sweep, move.step)
            if found is None:
                continue
            decoder, sweep = found
        energies.append(sweep.free_energy)
        if keep_trajectory:
            trajectory.append(decoder)
    return _dataset(problem, decoder, sweep, energies, trajectory, distance, converged)


def _checked(fresh: Sweep, before: Sweep) -> Sweep:
    """The new sweep, if its free energy did not rise by more than rounding."""
    if fresh.free_energy > before.free_energy + _rounding(before):
        raise RuntimeError(
            f"the free energy rose from {before.free_energy!r} to {fresh.free_energy!r}: the "
            "gradient of `error` does not belong to its value; check both."
        )
    return fresh


def _rounding(sweep: Sweep) -> float:
    """By how much two equal free energies may differ."""
    size = abs(sweep.free_energy) * (1.0 + float(np.abs(sweep.log_partition).max()))
    return 1e-12 * size + np.finfo(float).tiny


def _line_search(
    problem: GridProblem, decoder: Array, sweep: Sweep, step: Array
) -> tuple[Array, Sweep] | None:
    """The longest of some shares of the step that does not raise the free energy."""
    for k in range(HALVINGS):
        trial = decoder + step * 0.5**k
        found = problem.sweep(trial)
        if found.free_energy <= sweep.free_energy + (1e-3 * _rounding(sweep)):
            return trial, found
    return None


def _start(start: Start, X: Array, grid: LatentGrid) -> Array:
    """The decoder values before the first iteration."""
    if isinstance(start, str):
        if start != "principal":
            raise ValueError(
                f"`start` must be 'principal', decoder values or a function, got {start!r}."
            )
        centre = X.mean(axis=0)
        axes, variances = principal_axes(X)
        rank = min(grid.dimensions, variances.size)
        along = (axes * np.sqrt(variances))[:, :rank]
        return np.asarray(centre + grid.nodes[:, :rank] @ along.T)
    given = start(grid.nodes) if callable(start) else start
    found = np.array(given, dtype=np.float64)
    if found.shape != (grid.cells, X.shape[1]) or not np.isfinite(found).all():
        raise ValueError(
            f"`start` must be finite decoder values of shape {(grid.cells, X.shape[1])}, "
            f"got shape {found.shape}."
        )
    return found


def _dataset(
    problem: GridProblem,
    decoder: Array,
    sweep: Sweep,
    energies: list[float],
    trajectory: list[Array],
    distance: float,
    converged: bool,
) -> xr.Dataset:
    """The solution with labels and units."""
    grid = problem.grid
    marginal = np.exp(sweep.log_marginal)
    marginal_kl = float((marginal * (sweep.log_marginal - grid.log_mass)).sum())
    squared = "squared data units"
    variables: dict[str, tuple[tuple[str, ...], object, dict[str, str]]] = {
        "decoder": (("cell", "feature"), decoder, {"long_name": "decoder value g(z)"}),
        "log_prior_mass": (("cell",), grid.log_mass, {"long_name": "ln prior mass"}),
        "prior_mass": (("cell",), np.exp(grid.log_mass), {"long_name": "prior mass"}),
        "log_marginal_posterior": (
            ("cell",), sweep.log_marginal, {"long_name": "ln marginal posterior mass"},
        ),
        "marginal_posterior": (
            ("cell",), marginal, {"long_name": "marginal posterior mass"},
        ),
        "free_energy": (
            ("iteration",), np.array(energies), {"long_name": "free energy F", "units": squared},
        ),
        "temperature": ((), problem.temperature, {"units": squared}),
        "multiplier": ((), problem.multiplier, {"long_name": "multiplier of the mean error"}),
        "distortion": ((), sweep.distortion, {"long_name": "mean error E C"}),
        "rate": ((), problem.rate(sweep), {"long_name": "mean KL", "units": "nats"}),
        "marginal_kl": (
            (), marginal_kl, {"long_name": "KL of the marginal posterior", "units": "nats"},
        ),
        "solution_error": (
            (), distance, {"long_name": "largest Newton step relative to the data's spread"},
        ),
        "converged": ((), converged, {}),
    }  # fmt: skip
    if trajectory:
        variables["trajectory"] = (
            ("iteration", "cell", "feature"), np.stack(trajectory), {"long_name": "g(z)"},
        )  # fmt: skip
    coordinates = {f"latent_{k + 1}": ("cell", grid.nodes[:, k]) for k in range(grid.dimensions)}
    return xr.Dataset(variables, coordinates, {"grid_shape": list(grid.shape)})
