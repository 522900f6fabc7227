"""Many finished runs as one labelled dataset."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from geco_experiments.config import RunConfig
from geco_experiments.results.store import config_of, find, open_run, per_tolerance
from geco_experiments.runtime.errors import RunError

__all__ = ["AXES", "load"]

# a grid may have so many places, or so many for each run; beyond it most would be empty
MOST_CELLS, MOST_EMPTY = 1000, 25

AXES = ("dataset", "model", "objective", "kappa", "seed")
_PICTURES = ("inputs", "reconstructions", "samples")


def load(
    source: str | Path | Iterable[str | Path],
    *,
    layout: Literal["grid", "runs"] = "grid",
    pictures: bool = False,
) -> xr.Dataset:
    """Combine finished runs into one labelled dataset.

    In the layout `grid` the runs lie along the dimensions `dataset`, `model`, `objective`,
    `kappa` and `seed`; combinations that were not run are NaN, and so are steps that a run did
    not record. Runs without a tolerance (the ELBOs) have the label NaN along `kappa`; one run
    over a range has the objective `geco-range` and a place at each of its tolerances. Where two
    runs agree in all five, the configuration fields in which they differ become further
    dimensions, named by their path, such as `training.learning_rate`.

    In the layout `runs` there is one dimension `run`, with the same labels and every
    configuration field that differs as coordinates: better for many runs of different kinds.

    Args:
        source: A folder of runs, or paths of single runs.
        layout: `grid` or `runs`.
        pictures: Whether to keep inputs, reconstructions and samples; runs on images of
            different shapes cannot be combined with them.

    Returns:
        The dataset. The variable `name` holds each run's name, empty where there is none.

    Raises:
        ValueError: if there is no such layout.
        RunError: if there is no finished run, one is damaged, or the runs are no grid.
        SchemaError: if one is of a newer schema than this version reads.
    """
    if layout not in ("grid", "runs"):
        raise ValueError(f"`layout` must be grid or runs; got {layout!r}")
    paths = find(source) if isinstance(source, str | Path) else [Path(p) for p in source]
    if not paths:
        raise RunError(f"no finished run in {source}: make some with `geco run --out {source}`")
    runs = [part for path in paths for part in per_tolerance(open_run(path))]
    configs = [config_of(run) for run in runs]
    kappas = [
        float(run["kappa"]) if "kappa" in run.coords else c.kappa
        for run, c in zip(runs, configs, strict=True)
    ]
    labels, extra = _labels(configs, kappas)
    table = _stack(runs, configs, labels, pictures)
    return table if layout == "runs" else _unstack(table, (*AXES, *extra), labels)


def _labels(
    configs: list[RunConfig], kappas: list[float]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The label of every run along every axis, and the axes beside the five that are needed."""
    flat = [dict(_leaves(config.identity)) for config in configs]
    names = {name for fields in flat for name in fields}
    covered = {"dataset.name", "model.name", "objective.name", "objective.kappa", "seed"}
    differing = sorted(
        name for name in names - covered if len({_key(fields.get(name)) for fields in flat}) > 1
    )
    labels = [
        {
            "dataset": config.dataset.label,
            "model": config.model.name,
            "objective": config.objective_label,
            "kappa": kappa,
            "seed": config.seed,
            **{name: _label(fields.get(name)) for name in differing},
        }
        for config, kappa, fields in zip(configs, kappas, flat, strict=True)
    ]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for label in labels:
        groups.setdefault(tuple(_key(label[axis]) for axis in AXES), []).append(label)
    extra = [
        name
        for name in differing
        if any(len({_key(label[name]) for label in group}) > 1 for group in groups.values())
    ]
    return labels, extra


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _key(value: Any) -> Any:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def _label(value: Any) -> Any:
    if isinstance(value, tuple):
        return ", ".join(f"{one:g}" for one in value)
    return math.nan if value is None else int(value) if isinstance(value, bool) else value


def _stack(
    runs: list[xr.Dataset],
    configs: list[RunConfig],
    labels: list[dict[str, Any]],
    pictures: bool,
) -> xr.Dataset:
    parts = [run if pictures else run.drop_vars(_PICTURES, errors="ignore") for run in runs]
    try:
        table = xr.concat(
            parts,
            dim="run",
            data_vars="all",
            coords="minimal",
            compat="override",
            join="outer",
            combine_attrs="drop_conflicts",
        )
    except ValueError as error:
        raise RunError(f"these runs cannot be combined ({error}): load them one by one") from error
    table["name"] = ("run", [config.name for config in configs])
    coordinates = {name: ("run", _column([label[name] for label in labels])) for name in labels[0]}
    return table.assign_coords(coordinates)


def _column(values: list[Any]) -> Any:
    kinds = {type(value) for value in values}
    if len(kinds) > 1 and str in kinds:
        return np.array(["none" if value != value else str(value) for value in values])
    return np.array(values)


def _unstack(table: xr.Dataset, axes: tuple[str, ...], labels: list[dict[str, Any]]) -> xr.Dataset:
    # done by hand: a pandas MultiIndex has no place for the label NaN
    codes, coordinates = [], {}
    for axis in axes:
        unique, code = (
            np.unique(table[axis].values, return_inverse=True, equal_nan=True)
            if (table[axis].dtype.kind == "f")
            else np.unique(table[axis].values, return_inverse=True)
        )
        coordinates[axis] = unique
        codes.append(code)
    shape = tuple(len(coordinates[axis]) for axis in axes)
    count = table.sizes["run"]
    if math.prod(shape) > max(MOST_CELLS, MOST_EMPTY * count):
        raise RunError(
            f"{count} runs would fill few of the {math.prod(shape)} places along "
            f"{', '.join(axes)}: they are no grid, load them with layout='runs'"
        )
    index = tuple(codes)
    if len(set(zip(*(code.tolist() for code in codes), strict=True))) < table.sizes["run"]:
        raise RunError("two of these runs have the same configuration: load only one of them")
    variables = {}
    for name, variable in table.data_vars.items():
        if "run" not in variable.dims:
            variables[name] = variable.variable
            continue
        values = variable.transpose("run", ...).values
        if values.dtype.kind in "US" or values.dtype == object:
            out = np.full(shape, "", dtype=values.astype(str).dtype)
        else:
            kind = np.result_type(values.dtype, np.float32)
            out = np.full((*shape, *values.shape[1:]), np.nan, dtype=kind)
        out[index] = values
        rest = [dim for dim in variable.dims if dim != "run"]
        variables[name] = xr.Variable((*axes, *rest), out, variable.attrs)
    others = {
        name: coordinate.variable
        for name, coordinate in table.coords.items()
        if "run" not in coordinate.dims
    }
    attrs = table.attrs
    return xr.Dataset(variables, coords={**others, **coordinates}, attrs=attrs)
