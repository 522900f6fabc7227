"""Reading a table of samples from npy, npz, csv and netCDF files, packed or from a pipe."""

import gzip
import io
import math
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geco_theory.memory import require_memory
from geco_theory.report.text import parse_text

__all__ = ["Table", "has_h5netcdf", "read_table"]

SUFFIXES = (".npy", ".npz", ".csv", ".tsv", ".txt", ".nc", ".netcdf")
_ADVICE = "pass fewer samples or features."
_SPARSE = {"data", "indices", "indptr", "shape", "format"}


@dataclass(frozen=True)
class Table:
    """Samples read from a file.

    Attributes:
        X: the samples (n_samples, n_features), float64, finite.
        name: the file's name without its folder.
        notes: what was done to get there, one sentence each.
        columns: names of the features; empty where there are none.
    """

    X: NDArray[np.float64]
    name: str
    notes: tuple[str, ...]
    columns: tuple[str, ...] = ()


def read_table(path: str | Path, array: str | None = None) -> Table:
    """Read samples from a file; rows (or the first dimension) are samples.

    Args:
        path: an .npy, .npz, .csv (also .tsv, .txt) or .nc file, any of them also with .gz; a pipe;
            or ``-`` for standard input. More than two dimensions, such as images, are flattened
            into features, with a note.
        array: the name of the array in an .npz or .nc file (``group/name`` in a group); needed
            where there are several.

    Returns:
        The samples.

    Raises:
        ValueError: the file is missing, of another or a broken format, does not fit into memory,
            or does not hold a table of at least two samples of finite real numbers that differ;
            one sentence.
    """
    try:
        return _read(path, array)
    except MemoryError:
        raise ValueError(f"{Path(path).name!r} does not fit into memory; {_ADVICE}") from None


def _read(path: str | Path, array: str | None) -> Table:
    if str(path) == "-":
        content, name, suffix = sys.stdin.buffer.read(), "standard input", ""
    else:
        file = Path(path)
        if not file.exists() or file.is_dir():
            what = "is a folder" if file.is_dir() else "does not exist"
            raise ValueError(f"the file {str(path)!r} {what}; pass one of {', '.join(SUFFIXES)}.")
        name, suffix = file.name, _suffix(file)
        if suffix and suffix not in SUFFIXES and file.is_file():
            raise ValueError(
                f"{name!r} is of a type that cannot be read ({suffix}); "
                f"pass one of {', '.join(SUFFIXES)}."
            )
        if not suffix and file.is_file():
            raise ValueError(
                f"{name!r} is of a type that cannot be read (no suffix); "
                f"pass one of {', '.join(SUFFIXES)}."
            )
        if file.is_file():
            require_memory(2.0 * file.stat().st_size, f"reading {name!r}", advice=_ADVICE)
        content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = _unpacked(content, name)
    kind = _kind(content, suffix)
    if array is not None and kind not in ("npz", "netcdf"):
        raise ValueError(f"{name!r} holds no named arrays, so none can be chosen by name.")
    if kind == "text":
        text = parse_text(content, name, tabs=suffix == ".tsv")
        return _checked(text.values, name, list(text.notes), text.names)
    readers = {"npy": _read_npy, "npz": _read_npz, "netcdf": _read_netcdf}
    values, notes = readers[kind](content, name, array)
    return _checked(values, name, notes)


def _suffix(file: Path) -> str:
    """The suffix in small letters, that under .gz where there is one; none for a pipe."""
    if not file.is_file():
        return ""
    suffixes = [s.lower() for s in file.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def _unpacked(content: bytes, name: str) -> bytes:
    """What gzip has packed, as far as it fits."""
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            parts, size = [], 0
            while part := stream.read(2**24):
                size += len(part)
                require_memory(3.0 * size, f"unpacking {name!r}", advice=_ADVICE)
                parts.append(part)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{name!r} is not a readable gzip file: it is truncated.") from error
    return b"".join(parts)


def _kind(content: bytes, suffix: str) -> str:
    """What the first bytes say, or else the suffix."""
    if content[:6] == b"\x93NUMPY":
        return "npy"
    if content[:4] == b"PK\x03\x04":
        return "npz"
    if content[:3] == b"CDF" or content[:4] == b"\x89HDF":
        return "netcdf"
    return {".npy": "npy", ".npz": "npz", ".nc": "netcdf", ".netcdf": "netcdf"}.get(suffix, "text")


def _broken(name: str) -> str:
    return f"{name!r} is not a readable numpy file: it is truncated or of another format."


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type of a stored array, without its numbers."""
    try:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(_broken(name)) from error
    return shape, dtype


def _load(stream: IO[bytes], name: str, label: str) -> NDArray[np.generic]:
    """A stored array, if it and its double precision fit into memory."""
    shape, dtype = _header(stream, name)
    if dtype.hasobject:
        raise ValueError(
            f"{name!r} holds Python objects or is not a numpy file; save plain numbers."
        )
    number = float(math.prod(shape))
    require_memory(number * (8.0 + dtype.itemsize), f"unpacking {label}", advice=_ADVICE)
    stream.seek(0)
    try:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise ValueError(_broken(name)) from error


def _read_npy(
    content: bytes, name: str, array: str | None
) -> tuple[NDArray[np.generic], list[str]]:
    """The array of an npy file."""
    return _load(io.BytesIO(content), name, repr(name)), []


def _read_npz(
    content: bytes, name: str, array: str | None
) -> tuple[NDArray[np.generic], list[str]]:
    """One array of numbers of an npz file; others beside it are left alone."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            found = {}
            for member in members.namelist():
                with members.open(member) as stream:
                    found[member.removesuffix(".npy")] = _header(stream, name)
            if set(found) >= _SPARSE - {"indices", "indptr"} and "format" in found:
                raise ValueError(f"{name!r} holds a sparse matrix; save X.toarray() instead.")
            numeric = [key for key, (_, kind) in found.items() if kind.kind in "fiub"]
            if not numeric and any(kind.hasobject for _, kind in found.values()):
                raise ValueError(
                    f"{name!r} holds Python objects or is not a numpy file; save plain numbers."
                )
            key = _choose(name, numeric, array)
            with members.open(key + ".npy") as stream:
                values = _load(stream, name, f"{key!r} of {name!r}")
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, zlib.error) as error:
        raise ValueError(_broken(name)) from error
    return values, [f"Array {key!r} of {name}."]


def _read_netcdf(
    content: bytes, name: str, array: str | None
) -> tuple[NDArray[np.generic], list[str]]:
    """One numeric variable of a netCDF file; its first dimension counts samples."""
    engine = "scipy" if content[:3] == b"CDF" else "h5netcdf"
    if engine == "h5netcdf" and content[:4] != b"\x89HDF":
        raise ValueError(f"{name!r} is not a netCDF file; its first bytes say otherwise.")
    if engine == "h5netcdf" and not has_h5netcdf():
        raise ValueError(
            f"{name!r} is a netCDF 4 file, which needs h5netcdf to be read: "
            'pip install "geco-theory[report]".'
        )
    try:
        numeric: dict[str, tuple[str | None, str]] = {}
        for group in _groups(content, engine):
            # times are of no use here, and not every unit of theirs can be decoded
            with xr.open_dataset(
                io.BytesIO(content), engine=engine, group=group, decode_times=False
            ) as dataset:
                for key, variable in dataset.data_vars.items():
                    if variable.dtype.kind in "fiub":
                        label = f"{group}/{key}" if group else str(key)
                        numeric[label] = (group, str(key))
        key = _choose(name, list(numeric), array)
        group, variable_name = numeric[key]
        with xr.open_dataset(
            io.BytesIO(content), engine=engine, group=group, decode_times=False
        ) as dataset:
            variable = dataset[variable_name]
            require_memory(
                float(variable.size) * (8.0 + variable.dtype.itemsize),
                f"unpacking {key!r} of {name!r}",
                advice=_ADVICE,
            )
            return np.asarray(variable.values), [f"Variable {key!r} of {name}."]
    except ValueError as error:
        if name in str(error):
            raise
        raise ValueError(f"{name!r} is not a readable netCDF file ({error}).") from error
    except (OSError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{name!r} is not a readable netCDF file: it is truncated or of another format."
        ) from error


def _groups(content: bytes, engine: str) -> list[str | None]:
    """The root and all groups of a netCDF file."""
    found: list[str | None] = [None]
    if engine == "h5netcdf":
        import h5py

        with h5py.File(io.BytesIO(content), "r") as file:
            file.visititems(
                lambda key, item: found.append(key) if isinstance(item, h5py.Group) else None
            )
    return found


def has_h5netcdf() -> bool:
    """Whether netCDF 4 files can be read and written."""
    try:
        import h5netcdf
    except ModuleNotFoundError:
        return False
    return bool(h5netcdf)


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


def _checked(
    values: NDArray[np.generic], name: str, notes: list[str], columns: tuple[str, ...] = ()
) -> Table:
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
    return Table(table, name, tuple(notes), columns)
