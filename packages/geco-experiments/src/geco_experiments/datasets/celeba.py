"""CelebA from a user's own folder: aligned pictures, the official partition."""

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from geco_experiments.datasets.base import Dataset, Split
from geco_experiments.datasets.files import Array, cached
from geco_experiments.datasets.home import DataHome
from geco_experiments.datasets.spec import DatasetSpec
from geco_experiments.runtime.errors import DataError

__all__ = ["CELEBA", "load", "locate", "wanted"]

FOLDERS = ("celeba", "CelebA", "celeba/Anno", "celeba/Eval")
NEEDS = (
    "celeba/img_align_celeba/ with the 202,599 aligned .jpg files and "
    "celeba/list_eval_partition.txt, from the CelebA site (non-commercial research only)"
)
COUNT = 202_599
CROP = 148  # the usual centre crop of the 178 x 218 aligned pictures


def wanted() -> list[tuple[str, ...]]:
    """The places of the pictures' folder and of the partition."""
    return [
        tuple(f"{f}/{n}" for f in FOLDERS for n in ("img_align_celeba", "Img/img_align_celeba")),
        tuple(f"{f}/list_eval_partition.txt" for f in FOLDERS),
    ]


def locate(home: DataHome) -> list[Path]:
    """The pictures' folder and the partition.

    Raises:
        MissingDataError: if one is not there.
    """
    return home.require("celeba", wanted(), f"celeba needs {NEEDS}")


def load(home: DataHome, size: int = 64) -> Dataset:
    """Read the training and the test part, cropped to the centre and reduced to `size`.

    Raises:
        DataError: if the folder is missing, or a picture listed in the partition is.
    """
    folder, partition = locate(home)
    names: dict[int, list[Path]] = {0: [], 1: [], 2: []}
    for number, line in enumerate(_lines(partition), 1):
        words = line.split()
        if len(words) != 2 or words[1] not in {"0", "1", "2"}:
            raise DataError(f"{partition}, line {number}: expected `name 0|1|2`, got {line!r}")
        names[int(words[1])].append(folder / words[0])
    splits = []
    for part in (0, 2):
        if not names[part]:
            raise DataError(f"{partition} lists no pictures of part {part}: replace it")
        paths = names[part]
        name = f"celeba-{size}-{part}-{len(paths)}"
        array = cached(
            home.cache, name, [partition, folder], functools.partial(_read, paths, size)
        )
        splits.append(Split(torch.from_numpy(array)))
    return Dataset(
        name="celeba",
        train=splits[0],
        test=splits[1],
        preprocessing=f"centre crop {CROP} x {CROP}, reduced to {size} x {size} (Lanczos)",
    )


def _lines(partition: Path) -> list[str]:
    try:
        return partition.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{partition} cannot be read as text ({error}): replace it") from error


def is_original(home: DataHome) -> bool:
    """Whether the partition found lists as many pictures as it should."""
    _, partition = locate(home)
    return len(_lines(partition)) == COUNT


def _read(paths: list[Path], size: int) -> Array:
    out = np.empty((len(paths), 3, size, size), np.uint8)
    for row, path in enumerate(paths):
        try:
            with Image.open(path) as picture:
                width, height = picture.size
                left, top = (width - CROP) // 2, (height - CROP) // 2
                square = picture.convert("RGB").crop((left, top, left + CROP, top + CROP))
                small = square.resize((size, size), Image.Resampling.LANCZOS)
                out[row] = np.asarray(small).transpose(2, 0, 1)
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{path} cannot be read ({error}): complete the folder") from error
    return out


CELEBA = DatasetSpec(
    load=lambda config, home: load(home, config.image_size),
    locate=locate,
    needs=NEEDS,
    is_original=is_original,
)
