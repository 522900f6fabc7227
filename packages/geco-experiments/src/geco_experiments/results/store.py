"""The result of one run as a file: `run.nc` is written whole, read, checked and found."""

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geco_experiments.config import RunConfig
from geco_experiments.results import schema
from geco_experiments.runtime.atomic import write_atomic, writing
from geco_experiments.runtime.errors import RunError, SchemaError

__all__ = [
    "FILE",
    "config_of",
    "final",
    "finals",
    "find",
    "open_run",
    "per_tolerance",
    "write_dataset",
]

FILE = "run.nc"


def write_dataset(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset as netCDF-4, whole or not at all.

    Raises:
        RunError: if the disk is full or the folder cannot be written to.
    """
    encoding = {
        name: {"zlib": True, "complevel": 4, "fletcher32": True}
        for name, variable in dataset.variables.items()
        if variable.size > 1000 and variable.dtype.kind in "fiub"
    }
    # in memory first: HDF5 reports a full disk in ways that cannot be told apart
    with _local_locks():
        content = dataset.to_netcdf(engine="h5netcdf", encoding=encoding)
    with writing("the result", path):
        write_atomic(path, content)


def _local_locks() -> contextlib.AbstractContextManager[Any]:
    # on a Dask worker xarray would ask the cluster for a lock on what is written, which it cannot
    # have for a buffer in memory, and does not need: no other process can see that buffer
    if "dask" not in sys.modules:
        return contextlib.nullcontext()
    lock: contextlib.AbstractContextManager[Any] = importlib.import_module("dask.config").set(
        scheduler="synchronous"
    )
    return lock


def open_run(path: str | Path) -> xr.Dataset:
    """Read one run into memory.

    Args:
        path: Its `run.nc`, or the folder that holds it.

    Returns:
        The dataset; `docs/runs.md` of this package says what is in it.

    Raises:
        RunError: if the file is missing or damaged.
        SchemaError: if it is no run, or of a newer schema than this version reads.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise RunError(f"there is no result {path}: the run is not finished, start it again")
    try:
        dataset = xr.load_dataset(path, engine="h5netcdf")
    except Exception as error:  # whatever h5py raises for a damaged file
        reason = str(error).partition("\n")[0][:100]
        raise RunError(
            f"{path} is damaged or no netCDF file ({reason}): move it away and run it again"
        ) from error
    schema.check(dataset, str(path))
    return dataset


def config_of(dataset: xr.Dataset) -> RunConfig:
    """The configuration that a run was made with.

    Raises:
        SchemaError: if the attribute is missing or of another release.
    """
    try:
        return RunConfig.from_json(dataset.attrs["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SchemaError(f"the run's configuration cannot be read: {error}") from error


def final(dataset: xr.Dataset, name: str, split: str) -> float:
    """A final value of a run on one part of its data, such as `rms_error` on `train`.

    Raises:
        SchemaError: if the run has no such value, or one for each tolerance of a range.
    """
    values = finals(dataset, name, split)
    if values.size != 1:
        named = dataset.attrs.get("name", "a run")
        raise SchemaError(f"{named} has a `final_{name}` for each of its tolerances, not one")
    return float(values[0])


def finals(dataset: xr.Dataset, name: str, split: str) -> NDArray[np.float64]:
    """The final values of a run on one part of its data, one for each tolerance of a range.

    Raises:
        SchemaError: if the run has no such values.
    """
    try:
        values = dataset[f"final_{name}"].sel(split=split).values
        return np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (KeyError, TypeError, ValueError) as error:
        named = dataset.attrs.get("name", "a run")
        raise SchemaError(f"{named} has no `final_{name}` on {split}: run it again") from error


def per_tolerance(dataset: xr.Dataset) -> list[xr.Dataset]:
    """A run over a range as one dataset for each of its tolerances; any other as it is."""
    if "kappa" not in dataset.dims:
        return [dataset]
    return [dataset.isel(kappa=index) for index in range(dataset.sizes["kappa"])]


def find(folder: str | Path) -> list[Path]:
    """The results in a folder of runs, or in its subfolder `runs`, sorted by name."""
    folder = Path(folder)
    if (folder / FILE).is_file():
        return [folder / FILE]
    return sorted([*folder.glob(f"*/{FILE}"), *folder.glob(f"runs/*/{FILE}")])
