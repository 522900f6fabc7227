"""Reading a table of samples from npy, npz, csv and netCDF files."""

import csv
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geco_theory.memory import require_memory

__all__ = ["Table", "read_table"]

SUFFIXES = (".npy", ".npz", ".csv", ".tsv", ".txt", ".nc", ".netcdf")


@dataclass(frozen=True)
class Table:
    """Samples read from a file.

    Attributes:
        X: the samples (n_samples, n_features), float64, finite.
        name: the file's name without its folder.
        notes: what was done to get there, one sentence each.
    """

    X: NDArray[np.float64]
    name: str
    notes: tuple[str, ...]


def read_table(path: str | Path, array: str | None = None) -> Table:
    """Read samples from a file; rows (or the first dimension) are samples.

    Args:
        path: an .npy, .npz, .csv (also .tsv, .txt) or .nc file. More than two dimensions, such
            as images, are flattened into features, with a note.
        array: the name of the array in an .npz or .nc file; needed where there are several.

    Returns:
        The samples.

    Raises:
        ValueError: the file is missing, of another or a broken format, or does not hold a table
            of at least two samples of finite real numbers that differ; one sentence.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise ValueError(f"the file {str(path)!r} {what}; pass one of {', '.join(SUFFIXES)}.")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{file.name!r} is of a type that cannot be read ({suffix or 'no suffix'}); "
            f"pass one of {', '.join(SUFFIXES)}."
        )
    if array is not None and suffix not in (".npz", ".nc", ".netcdf"):
        raise ValueError(f"{file.name!r} holds no named arrays, so none can be chosen by name.")
    require_memory(4.0 * file.stat().st_size, f"reading {file.name!r}")
    if suffix in (".npy", ".npz"):
        values, notes = _read_numpy(file, array)
    elif suffix in (".nc", ".netcdf"):
        values, notes = _read_netcdf(file, array)
    else:
        values, notes = _read_text(file)
    return _checked(values, file.name, notes)


def _read_numpy(file: Path, array: str | None) -> tuple[NDArray[np.generic], list[str]]:
    """The array of an npy file, or one of an npz file."""
    broken = f"{file.name!r} is not a readable numpy file: it is truncated or of another format."
    try:
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, []
            with loaded:
                name = _choose(file.name, list(loaded.files), array)
                return np.asarray(loaded[name]), [f"Array {name!r} of {file.name}."]
    except (EOFError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise ValueError(broken) from error
    except ValueError as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise ValueError(
                f"{file.name!r} holds Python objects or is not a numpy file; save plain numbers."
            ) from error
        if file.name in str(error):
            raise
        raise ValueError(broken) from error


def _read_netcdf(file: Path, array: str | None) -> tuple[NDArray[np.generic], list[str]]:
    """One numeric variable of a netCDF file; its first dimension counts samples."""
    try:
        with xr.open_dataset(file, engine=_reading_engine(file)) as dataset:
            numeric = [
                str(name) for name, v in dataset.data_vars.items() if v.dtype.kind in "fiub"
            ]
            name = _choose(file.name, numeric, array)
            return np.asarray(dataset[name].values), [f"Variable {name!r} of {file.name}."]
    except ValueError as error:
        if file.name in str(error):
            raise
        raise ValueError(f"{file.name!r} is not a readable netCDF file.") from error
    except (OSError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{file.name!r} is not a readable netCDF file: it is truncated or of another format."
        ) from error


def _reading_engine(file: Path) -> str:
    """What reads this file: netCDF 3 by scipy, netCDF 4 by an extra."""
    with file.open("rb") as stream:
        magic = stream.read(4)
    if magic[:3] == b"CDF":
        return "scipy"
    if magic != b"\x89HDF":
        raise ValueError(f"{file.name!r} is not a netCDF file; its first bytes say otherwise.")
    if not has_h5netcdf():
        raise ValueError(
            f"{file.name!r} is a netCDF 4 file, which needs h5netcdf to be read: "
            'pip install "geco-theory[report]".'
        )
    return "h5netcdf"


def has_h5netcdf() -> bool:
    """Whether netCDF 4 files can be read and written."""
    try:
        import h5netcdf
    except ModuleNotFoundError:
        return False
    return bool(h5netcdf)


def _read_text(file: Path) -> tuple[NDArray[np.generic], list[str]]:
    """Numbers separated by commas, semicolons, tabs or blanks; a header row is skipped."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name!r} is not a text file in UTF-8.") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise ValueError(f"{file.name!r} is empty.")
    separator = next((s for s in (",", ";", "\t") if s in lines[0]), None)
    if separator is None:
        rows = [line.split() for line in lines]
    else:
        rows = list(csv.reader(lines, delimiter=separator))
    notes = []
    if not any(_number(cell) is not None for cell in rows[0]):
        notes.append(f"The first row of {file.name} was read as a header.")
        rows = rows[1:]
    if not rows:
        raise ValueError(f"{file.name!r} has a header but no rows.")
    width = len(rows[0])
    values = np.empty((len(rows), width))
    for i, row in enumerate(rows):
        place = f"{file.name!r}, row {i + 1} of the data"
        if len(row) != width:
            raise ValueError(f"{place} has {len(row)} columns where the first has {width}.")
        for j, cell in enumerate(row):
            number = _number(cell)
            if number is None:
                what = f"{cell.strip()!r} is not a number" if cell.strip() else "the cell is empty"
                raise ValueError(f"{place}, column {j + 1}: {what}; drop or encode that column.")
            values[i, j] = number
    return values, notes


def _number(cell: str) -> float | None:
    """A cell as a number; None if it is none."""
    try:
        return float(cell)
    except ValueError:
        return None


def _choose(file: str, names: list[str], wanted: str | None) -> str:
    """The array that was asked for, or the only one."""
    listing = ", ".join(repr(name) for name in names[:12]) or "none"
    if wanted is not None:
        if wanted not in names:
            raise ValueError(f"{file!r} has no array {wanted!r} of numbers; there are: {listing}.")
        return wanted
    if len(names) != 1:
        raise ValueError(
            f"{file!r} has {len(names)} arrays of numbers ({listing}); choose one with --array."
        )
    return names[0]


def _checked(values: NDArray[np.generic], name: str, notes: list[str]) -> Table:
    """A table of finite numbers with something in it."""
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name!r} must hold real numbers, got {values.dtype}.")
    if values.ndim < 2:
        raise ValueError(
            f"{name!r} must have samples in rows and features in columns, got shape "
            f"{values.shape}; reshape a single feature to (n, 1)."
        )
    if values.shape[0] < 2 or math.prod(values.shape[1:]) < 1:
        raise ValueError(
            f"{name!r} must have at least two samples and one feature, got shape {values.shape}."
        )
    if values.ndim > 2:
        shape = " x ".join(str(s) for s in values.shape[1:])
        width = math.prod(values.shape[1:])
        notes.append(
            f"{values.shape[0]} arrays of {shape} were flattened to {width} features each."
        )
        values = values.reshape(values.shape[0], width)
    table = values.astype(np.float64)
    finite = np.isfinite(table)
    if not finite.all():
        row, column = (int(k) for k in np.argwhere(~finite)[0])
        raise ValueError(
            f"{name!r} has {int((~finite).sum())} values that are NaN or infinite, the first in "
            f"row {row + 1}, column {column + 1}; remove or fill them."
        )
    if (table == table[0]).all():
        raise ValueError(f"{name!r} has no variance: all {table.shape[0]} samples are equal.")
    return Table(table, name, tuple(notes))
