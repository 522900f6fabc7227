"""Somebody's own arrays as a dataset: vectors, sequences or images, from files or from memory."""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from geco_experiments.config import DatasetConfig
from geco_experiments.datasets.base import Dataset, Split
from geco_experiments.runtime.errors import DataError

__all__ = ["from_arrays", "read_arrays"]

Array = NDArray[Any]
NAMES: dict[str, tuple[str, ...]] = {
    "array": ("x", "X", "data", "images", "image", "samples", "arr_0"),
    "labels": ("labels", "label", "y", "targets"),
    "context": ("context", "c"),
    "mask": ("mask", "observed"),
}


@dataclass(frozen=True)
class Parts:
    """One role's array: in one piece, or as a training and a held-out part."""

    name: str
    train: Array
    test: Array | None = None


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a .npy, .npz or .nc file by name; nothing is ever unpickled.

    Raises:
        DataError: if the file is damaged, holds no array, or is larger than the memory.
    """
    try:
        _check_size(path)
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return {path.stem: np.load(file, allow_pickle=False)}
        if path.suffix.lower() == ".npz":
            return _read_npz(path)
        with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as file:
            # strings and times stay behind: no model can use them
            return {str(name): file[name].values for name in file.data_vars}
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} does not fit into the memory of this machine") from error
    except Exception as error:  # whatever the readers make of a damaged file
        reason = str(error).partition("\n")[0][:150]
        raise DataError(
            f"{path} cannot be read ({reason}): is it a {path.suffix} file?"
        ) from error


def _read_npz(path: Path) -> dict[str, Array]:
    found: dict[str, Array] = {}
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        for name in file.files:
            try:
                found[name] = file[name]
            except ValueError as error:
                # names and other metadata as objects: no reason to refuse the arrays beside them
                if "pickle" not in str(error):
                    raise
    return found


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise DataError(
            f"{path} holds {size / 2**30:.1f} GiB, this machine has {memory / 2**30:.1f} GiB of "
            "memory: save fewer rows, or bytes instead of numbers"
        )


def from_arrays(
    arrays: Mapping[str, Any], config: DatasetConfig, source: str, name: str
) -> Dataset:
    """A dataset from named arrays.

    The data are the array that `config.array` names, else the one called x, data or images, else
    the only one there is. Parts called NAME_train and NAME_test (or train_NAME and test_NAME; for
    the data also train and test) are the two parts; else a share is held out by the seed.

    Args:
        arrays: Arrays by name, each with one row for each example.
        config: Names of the arrays, the held-out share, and the range of the values.
        source: Where they come from, for messages.
        name: The dataset's name.

    Raises:
        DataError: if the arrays cannot be told apart, do not fit together, or hold what no model
            can use; the message names them with their shapes.
    """
    # asanyarray: the mask of a masked array says what was observed
    arrays = {key: np.asanyarray(value) for key, value in arrays.items()}
    labels = _role(arrays, config, "labels", source)
    context = _role(arrays, config, "context", source)
    mask = _role(arrays, config, "mask", source)
    data = _data(arrays, config, source, [p.name for p in (labels, context, mask) if p])
    rows, held_out = _rows(data, config, source)

    def pick(part: Parts | None, train: bool) -> Array | None:
        if part is None:
            return None
        if (part.test is None) != (data.test is None):
            raise DataError(
                f"{source}: `{data.name}` and `{part.name}` must both be in one piece or both in "
                "a training and a held-out part"
            )
        if part.test is not None:
            return part.train if train else part.test
        if len(part.train) != len(data.train):
            raise DataError(
                f"{source}: `{part.name}` has {len(part.train)} rows, `{data.name}` "
                f"{len(data.train)}"
            )
        return part.train[rows if train else held_out]

    values = [_values(pick(data, train), f"{source}: `{data.name}`") for train in (True, False)]
    masks = [
        _mask(array, pick(mask, train), source)
        for array, train in zip(values, (True, False), strict=True)
    ]
    if any(one is not None for one in masks):  # a gap in one part: both have a mask
        masks = [
            np.ones(v.shape, bool) if m is None else m for v, m in zip(values, masks, strict=True)
        ]
    low, high = _range(values[0], masks[0], config)
    codes, classes = _labels([pick(labels, train) for train in (True, False)], source)
    splits = []
    for array, observed, code, train in zip(values, masks, codes, (True, False), strict=True):
        given = pick(context, train)
        if array.dtype != np.uint8:
            # what was not observed becomes the lowest value, so that models see a number
            filled = array if observed is None else np.where(observed, array, low)
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(filled, dtype=np.float32)
        try:
            splits.append(
                Split(
                    _shaped(torch.from_numpy(np.ascontiguousarray(array))),
                    None if code is None else torch.from_numpy(code),
                    None if given is None else _context(given, source),
                    None if observed is None else _shaped(torch.from_numpy(observed), array.dtype),
                )
            )
        except ValueError as error:
            raise DataError(f"{source}: {error}") from error
    try:
        return Dataset(
            name=name,
            train=splits[0],
            test=splits[1],
            classes=classes,
            scale=1 / (high - low),
            offset=low,
            preprocessing=f"values {low:g} to {high:g} of the file become 0 to 1",
        )
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error


def _find(arrays: Mapping[str, Array], name: str) -> Parts | None:
    for train, test in (
        (f"{name}_train", f"{name}_test"),
        (f"train_{name}", f"test_{name}"),
    ):
        if train in arrays and test in arrays:
            return Parts(name, arrays[train], arrays[test])
    return Parts(name, arrays[name]) if name in arrays else None


def _role(
    arrays: Mapping[str, Array], config: DatasetConfig, role: str, source: str
) -> Parts | None:
    wanted = getattr(config, role)
    if wanted is not None:
        found = _find(arrays, wanted)
        if found is None:
            raise DataError(
                f"{source} has no array {wanted!r} for `dataset.{role}`; it has {_list(arrays)}"
            )
        return found
    for name in NAMES[role]:
        found = _find(arrays, name)
        if found is not None and found.train.dtype != object:
            return found
    return None


def _data(
    arrays: Mapping[str, Array], config: DatasetConfig, source: str, taken: list[str]
) -> Parts:
    found = _role(arrays, config, "array", source)
    if found is not None:
        return found
    if "train" in arrays and "test" in arrays:
        return Parts("train", arrays["train"], arrays["test"])
    if len(arrays) == 1:
        ((name, array),) = arrays.items()
        return Parts(name, array)
    left = {
        name: array
        for name, array in arrays.items()
        if array.dtype.kind in "buif" and array.ndim >= 2 and name not in taken
    }
    if len(left) != 1:
        raise DataError(
            f"{source} has {'no' if not left else 'more than one'} array that could be the data "
            f"({_list(arrays) or 'it is empty'}): name it with --dataset.array"
        )
    (name, array), *_ = left.items()
    return Parts(name, array)


def _list(arrays: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())


def _rows(data: Parts, config: DatasetConfig, source: str) -> tuple[Array, Array]:
    """The rows of the training and of the held-out part of an array in one piece."""
    if data.train.ndim < 2:
        raise DataError(
            f"{source}: `{data.name}` has shape {data.train.shape}; it must have a row for each "
            "example, (n, ...)"
        )
    count = len(data.train)
    if data.test is not None:
        return np.arange(0), np.arange(0)
    if count < 2:
        raise DataError(f"{source}: `{data.name}` has {count} rows; a run needs 2 at least")
    order = np.random.default_rng(config.split_seed).permutation(count)
    held_out = min(max(1, round(config.test_share * count)), count - 1)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _values(array: Array | None, what: str) -> Array:
    """Numbers, with channels before rows and columns."""
    if array is None or array.dtype.kind not in "buif":
        raise DataError(f"{what} holds {'nothing' if array is None else array.dtype}, no numbers")
    if isinstance(array, np.ma.MaskedArray):
        array = np.ma.filled(array.astype(np.float32), np.nan)
    if array.ndim == 4 and array.shape[-1] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        array = np.moveaxis(array, -1, 1)
    if array.dtype.kind == "f" and np.isinf(array).any():
        raise DataError(f"{what} holds infinite values: mask or remove them")
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        most = np.abs(np.nan_to_num(array)).max(initial=0)
        if most > np.finfo(np.float32).max:
            raise DataError(f"{what} holds {most:g}, more than single precision can: rescale it")
    return array


def _shaped(array: torch.Tensor, stored: Any = None) -> torch.Tensor:
    """Grey images get a channel: bytes (n, H, W), and numbers (n, H, W) that are square."""
    is_bytes = array.dtype == torch.uint8 or stored == np.uint8
    if array.ndim == 3 and (is_bytes or array.shape[1] == array.shape[2]):
        return array[:, None]
    if array.dtype == torch.uint8 and array.ndim != 4:
        return array.float()
    return array


def _mask(array: Array, given: Array | None, source: str) -> Array | None:
    """Where values were observed: what the file says, and no gaps (NaN)."""
    observed = None
    if array.dtype.kind == "f":
        known = ~np.isnan(array)
        observed = None if known.all() else known
    if given is None:
        return observed
    if given.ndim == 4 and given.shape != array.shape:
        given = np.moveaxis(given, -1, 1)
    try:
        mask = np.broadcast_to(given.astype(bool), array.shape)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{source}: the mask has shape {given.shape}, the data {array.shape}"
        ) from error
    return np.array(mask if observed is None else mask & observed)


def _range(array: Array, mask: Array | None, config: DatasetConfig) -> tuple[float, float]:
    """The values that become 0 and 1."""
    if array.dtype == np.uint8:
        low, high = 0.0, 255.0
    else:
        seen = array if mask is None else array[mask]
        low = float(seen.min(initial=0.0) if seen.size == 0 else seen.min())
        high = float(seen.max(initial=1.0) if seen.size == 0 else seen.max())
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
    low = low if config.low is None else config.low
    high = high if config.high is None else config.high
    return (low, high) if high > low else (low, low + 1.0)


def _labels(parts: list[Array | None], source: str) -> tuple[list[Array | None], int | None]:
    """Labels of any kind as numbers 0, 1, ..., and how many there are."""
    if parts[0] is None or parts[1] is None:
        return [None, None], None
    for part in parts:
        if part is None or part.ndim != 1 or part.dtype.kind not in "buifSU":
            shape = None if part is None else part.shape
            raise DataError(
                f"{source}: labels must be one number or word for each row; got {shape}"
            )
    kinds, codes = np.unique(
        np.concatenate([p for p in parts if p is not None]), return_inverse=True
    )
    if kinds.dtype.kind == "f" and not np.equal(np.mod(kinds, 1), 0).all():
        raise DataError(
            f"{source}: labels must be classes, not measured numbers such as {kinds[0]}"
        )
    codes = codes.astype(np.int64)
    return [codes[: len(parts[0])], codes[len(parts[0]) :]], len(kinds)


def _context(array: Array, source: str) -> torch.Tensor:
    if array.dtype.kind not in "buif" or not np.isfinite(array).all():
        raise DataError(f"{source}: the context must hold finite numbers; got {array.dtype}")
    array = array[:, None] if array.ndim == 1 else array
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
