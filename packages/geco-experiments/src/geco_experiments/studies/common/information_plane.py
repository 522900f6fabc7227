r"""The two limits that every information plane draws: the linear optimum (D7), the bound (D9).

A study names the runs; the limits are those of the datasets that these runs train on, on one
grid of errors. A conditional model has neither: its context tells part of the image.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray

from geco_experiments.config import DatasetConfig, RunConfig
from geco_experiments.datasets import has_context
from geco_experiments.datasets.home import DataHome
from geco_experiments.evaluation.bounds import data_limits, least_kl
from geco_experiments.studies.common.profiles import Profile
from geco_experiments.studies.common.study import Runs
from geco_experiments.studies.common.style import COLORS, LABELS

__all__ = ["bounded_datasets", "draw_limits", "limits_of", "margins", "with_limits"]

GRID = np.geomspace(0.02, 0.6, 80)
TEMPERATURES = {"smoke": 8, "laptop": 12, "paper": 12}


def bounded_datasets(configs: Iterable[RunConfig], data_home: Path | None) -> list[DatasetConfig]:
    """The datasets of some runs that have limits, each once."""
    home = DataHome.resolve(data_home)
    datasets = dict.fromkeys(config.dataset for config in configs)
    return [dataset for dataset in datasets if not has_context(dataset, home)]


def limits_of(
    dataset: DatasetConfig, profile: Profile, folder: Path, data_home: Path | None
) -> xr.Dataset:
    """The limits of one dataset, kept in `limits/` of the results folder.

    Args:
        dataset: the dataset, one of `bounded_datasets`.
        profile: how many temperatures F* is solved at.
        folder: the results folder.
        data_home: where the datasets lie.
    """
    home = DataHome.resolve(data_home)
    return data_limits(dataset, home, folder / "limits", temperatures=TEMPERATURES[profile.name])


def with_limits(
    table: xr.Dataset, runs: Runs, profile: Profile, data_home: Path | None
) -> xr.Dataset:
    """A table of runs (`final_values`) with the limits of their datasets beside it.

    Returns:
        The table with `least_kl` and `linear_kl` over (`known_dataset`, `rms`), and
        `least_kl_at_run`, the bound at each run's training-set error; NaN where there is none.
    """
    configs = {config.dataset.name: config.dataset for config in runs}
    bounded = {dataset.name for dataset in bounded_datasets(runs, data_home)}
    bound = np.full((len(configs), GRID.size), np.nan)
    linear = np.full((len(configs), GRID.size), np.nan)
    names = table["dataset"].values if "dataset" in table else np.array([])
    at_run = np.full(names.size, np.nan)
    for index, (name, dataset) in enumerate(configs.items()):
        if name not in bounded:
            continue
        limits = limits_of(dataset, profile, runs.folder.parent, data_home)
        bound[index] = least_kl(limits, GRID)
        known = limits["rms"].values
        linear[index] = np.interp(
            GRID, known, limits["linear_kl"].values, left=np.nan, right=np.nan
        )
        rows = names == name
        if rows.any():
            error = table["final_rms_error"].sel(split="train").values[rows]
            at_run[rows] = least_kl(limits, error)
    data = table.assign_coords(known_dataset=list(configs), rms=GRID).assign(
        least_kl=(("known_dataset", "rms"), bound, {"units": "nat"}),
        linear_kl=(("known_dataset", "rms"), linear, {"units": "nat"}),
    )
    return data.assign(least_kl_at_run=("run", at_run, {"units": "nat"})) if names.size else data


def draw_limits(
    axes: Axes,
    data: xr.Dataset,
    dataset: str,
    *,
    linear: bool = True,
    position: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda rms: rms,
) -> None:
    """Draw the region where no model can be, and the best linear VAE.

    Args:
        axes: an information plane.
        data: what `with_limits` returned.
        dataset: whose limits.
        linear: whether to draw the linear optimum too.
        position: the place on the horizontal axis of an RMS error.
    """
    limits = data.sel(known_dataset=dataset)
    bound = limits["least_kl"].values
    if not np.isfinite(bound).any():
        return
    place = position(data["rms"].values)
    axes.fill_between(place, 0, bound, color="#d9dce2", linewidth=0)
    axes.plot(place, bound, color=COLORS["bound"], linewidth=1, label=LABELS["bound"])
    if linear:
        axes.plot(
            place,
            limits["linear_kl"],
            color=COLORS["linear"],
            linewidth=1.2,
            linestyle=(0, (4, 2)),
            label=LABELS["linear"],
        )


def margins(data: xr.Dataset) -> NDArray[np.float64]:
    """How far each run's KL lies above the bound, nats (run,); NaN for runs that have none."""
    return np.asarray(data["final_kl"].sel(split="train") - data["least_kl_at_run"])
