"""What finished runs reached, as one table with a row per run: what most studies begin with."""

import math
from collections.abc import Callable

import numpy as np
import xarray as xr

from geco_experiments.config import RunConfig
from geco_experiments.results.store import per_tolerance
from geco_experiments.studies.common.study import Runs

__all__ = ["final_values", "rows_of", "select", "spread"]

_FINALS = (
    "final_rms_error",
    "final_kl",
    "final_kl_error",
    "final_nll",
    "marginal_kl",
    "marginal_kl_error",
)
_SCALARS = ("final_beta", "final_multiplier", "seconds", "parameters", "elements")


def final_values(
    runs: Runs, keep: Callable[[RunConfig], bool] = lambda config: True
) -> xr.Dataset:
    """The final values of runs over the whole training set and the held-out set.

    Args:
        runs: finished runs.
        keep: which of them to take.

    Returns:
        A dataset over `run` and `split`, a run over a range once for each of its tolerances
        (`rows_of`), with the run's `dataset`, `model`, `objective`,
        `kappa`, `sigma`, `training_beta` and `seed` as coordinates along `run`.
    """
    pairs = [pair for pair in rows_of(runs) if keep(pair[0])]
    configs, rows = [config for config, _ in pairs], [row for _, row in pairs]
    variables = {
        name: (("run", "split"), np.array([row[name].values for row in rows]), rows[0][name].attrs)
        for name in _FINALS
    } | {
        name: ("run", np.array([float(row[name]) for row in rows]), rows[0][name].attrs)
        for name in _SCALARS
    }
    labels = {
        "name": [config.name for config in configs],
        "dataset": [config.dataset.label for config in configs],
        "model": [config.model.name for config in configs],
        "objective": [_objective(config) for config in configs],
        "kappa": [_kappa(config, row) for config, row in pairs],
        "sigma": [_sigma(config) for config in configs],
        "training_beta": [
            config.objective.beta if config.objective.name == "elbo" else math.nan
            for config in configs
        ],
        "seed": [config.seed for config in configs],
    }
    coords = {name: ("run", values) for name, values in labels.items()}
    return xr.Dataset(variables, coords={**coords, "split": rows[0]["split"].values})


def rows_of(runs: Runs) -> list[tuple[RunConfig, xr.Dataset]]:
    """Each run with its configuration; a run over a range for each of its tolerances."""
    return [(config, part) for config in runs for part in per_tolerance(runs[config])]


def _objective(config: RunConfig) -> str:
    return "geco-range" if config.objective.kappa_range else config.objective.name


def _kappa(config: RunConfig, row: xr.Dataset) -> float:
    return float(row["kappa"]) if "kappa" in row.coords else config.kappa


def _sigma(config: RunConfig) -> float:
    if config.objective.name == "elbo":
        return config.objective.sigma
    return config.objective.sigma_end if config.objective.name == "annealed-elbo" else math.nan


def select(table: xr.Dataset, **labels: object) -> xr.Dataset:
    """The rows of a table whose labels have the given values; NaN selects NaN."""
    mask = np.ones(table.sizes["run"], dtype=bool)
    for name, value in labels.items():
        column = table[name].values
        if isinstance(value, float) and math.isnan(value):
            mask &= np.isnan(column)
        elif isinstance(value, float):
            mask &= np.isclose(column, value)
        else:
            mask &= column == value
    return table.isel(run=np.flatnonzero(mask))


def spread(values: xr.DataArray, digits: int = 3) -> str:
    """A mean with the range over runs, in words: `0.1003 (0.1001 to 0.1004)`."""
    numbers = np.asarray(values, dtype=float).ravel()
    numbers = numbers[np.isfinite(numbers)]
    if numbers.size == 0:
        return "not measured"
    if numbers.size == 1:
        return f"{numbers[0]:.{digits}g}"
    low, high = numbers.min(), numbers.max()
    return f"{numbers.mean():.{digits}g} ({low:.{digits}g} to {high:.{digits}g})"
