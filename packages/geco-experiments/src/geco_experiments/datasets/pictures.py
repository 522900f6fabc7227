"""Somebody's own folder of pictures as a dataset."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geco_experiments.datasets.files import cached
from geco_experiments.datasets.home import DataHome
from geco_experiments.runtime.errors import DataError

__all__ = ["read_pictures"]

SUFFIXES = (".png", ".jpg", ".jpeg")
HELD_OUT = ("test", "val", "valid", "validation")


def read_pictures(folder: Path, home: DataHome) -> dict[str, NDArray[Any]]:
    """The pictures of a folder as arrays by name, for `from_arrays`.

    Pictures lie in the folder itself, or in its sub-folders `train` and `test`. Where all of them
    lie one level deeper, that level's names are the labels. They are read in the order of their
    paths.

    Args:
        folder: The folder.
        home: Its cache keeps what was read, for the next run.

    Returns:
        `x` (n, C, H, W) bytes, with `labels` where there are some; or both as `x_train`,
        `x_test`, `labels_train`, `labels_test`.

    Raises:
        DataError: if there is no picture, one cannot be read, or they differ in size or channels.
    """
    train = folder / "train"
    tests = [folder / name for name in HELD_OUT if (folder / name).is_dir()]
    split = train.is_dir() and len(tests) > 0
    parts = {"_train": train, "_test": tests[0]} if split else {"": folder}
    found: dict[str, NDArray[Any]] = {}
    shape: tuple[Path, tuple[int, ...]] | None = None
    for end, place in parts.items():
        paths = _pictures(place)
        array = cached(home.cache, f"pictures{end}", paths, functools.partial(_read, paths))
        if shape is not None and shape[1] != array.shape[1:]:
            raise DataError(_differ(shape[0], shape[1], paths[0], array.shape[1:]))
        shape = (paths[0], array.shape[1:])
        found[f"x{end}"] = array
        places = {path.relative_to(place).parts[:-1] for path in paths}
        if all(len(parts) == 1 for parts in places) and len(places) > 1:
            found[f"labels{end}"] = np.array([path.parent.name for path in paths])
    if len(parts) == 2 and ("labels_train" in found) != ("labels_test" in found):
        found = {name: array for name, array in found.items() if name.startswith("x")}
    return found


def _pictures(folder: Path) -> list[Path]:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not paths:
        raise DataError(f"{folder} holds no picture that ends with {', '.join(SUFFIXES)}")
    return paths


def _read(paths: list[Path]) -> NDArray[np.uint8]:
    out: NDArray[np.uint8] | None = None
    for row, path in enumerate(paths):
        try:
            with Image.open(path) as picture:
                pixels = _pixels(picture)
        except Exception as error:  # whatever Pillow makes of a damaged file
            raise DataError(f"{path} cannot be read ({error}): replace or remove it") from error
        if out is None:
            out = np.empty((len(paths), *pixels.shape), np.uint8)
        if pixels.shape != out.shape[1:]:
            raise DataError(_differ(paths[0], out.shape[1:], path, pixels.shape))
        out[row] = pixels
    return np.empty((0, 1, 1, 1), np.uint8) if out is None else out


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    """Bytes (C, H, W): one channel of grey pictures, three of others."""
    if picture.mode in ("I", "F", "I;16", "I;16B", "I;16L"):
        raise ValueError("it has more than 8 bits a channel; save it as 8-bit, or as an array")
    if picture.mode == "P":
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode in ("RGBA", "LA"):
        if np.asarray(picture.getchannel("A")).min() < 255:
            raise ValueError("it is transparent in places; save it on a background")
        picture = picture.convert("RGB" if picture.mode == "RGBA" else "L")
    picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _differ(one: Path, shape: tuple[int, ...], other: Path, found: tuple[int, ...]) -> str:
    def words(shape: tuple[int, ...]) -> str:
        kind = "grey" if shape[0] == 1 else "colour"
        return f"{kind}, {shape[2]} x {shape[1]} pixels"

    return (
        f"all pictures must be of one size and kind, but {one} is {words(shape)} and {other} is "
        f"{words(found)}: bring them to one size first"
    )
