"""CIFAR-10 from its binary version; the Python version holds pickles and is never opened."""

from pathlib import Path

import numpy as np
import torch

from geco_experiments.datasets.base import Dataset, Split
from geco_experiments.datasets.files import (
    CIFAR_RECORD,
    Array,
    cached,
    read_bytes,
    read_cifar,
    read_tar_members,
    variants,
)
from geco_experiments.datasets.home import DataHome
from geco_experiments.datasets.sources import CIFAR_10_FILES
from geco_experiments.datasets.spec import DatasetSpec
from geco_experiments.runtime.errors import DataError

__all__ = ["CIFAR_10", "load", "locate", "wanted"]

FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
FOLDERS = ("cifar-10-batches-bin", "cifar-10/cifar-10-batches-bin", "cifar-10")
ARCHIVE = ("cifar-10-binary.tar.gz", "cifar-10/cifar-10-binary.tar.gz")
PICKLES = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar-10/cifar-10-batches-py")


def wanted() -> list[tuple[str, ...]]:
    """For each of the six files, the places where it may be."""
    return [variants(name, FOLDERS) for name in FILES]


def locate(home: DataHome) -> list[Path]:
    """The six files, or the one archive that holds them.

    Raises:
        MissingDataError: if neither is there.
    """
    archive = home.find(ARCHIVE)
    if archive is not None and any(home.find(group) is None for group in wanted()):
        return [archive]
    remedy = "get them with `geco data fetch cifar-10`"
    pickles = home.find(PICKLES)
    if pickles is not None:
        remedy = f"{pickles.name} is there but holds pickles, which can run code; {remedy}"
    return home.require("cifar-10", wanted(), remedy)


def load(home: DataHome) -> Dataset:
    """Read 50,000 training and 10,000 held-out colour images of 32 x 32 pixels.

    Raises:
        DataError: if files are missing, damaged or do not fit together.
    """
    paths = locate(home)

    def make() -> Array:
        if len(paths) == 1:
            contents = read_tar_members(paths[0], FILES)
        else:
            contents = [read_bytes(path) for path in paths]
        table = np.empty((10_000 * len(FILES), CIFAR_RECORD), np.uint8)
        for part, name, data in zip(np.split(table, len(FILES)), FILES, contents, strict=True):
            records = read_cifar(data, name)
            if len(records) != len(part):
                raise DataError(f"{name} holds {len(records)} images, not 10,000: replace it")
            part[:] = records
        return table

    plain = paths[0].suffix == ".bin"
    table = make() if plain else cached(home.cache, "cifar-10", paths, make)
    images = torch.from_numpy(table[:, 1:].copy()).reshape(-1, 3, 32, 32)
    labels = torch.from_numpy(table[:, 0].astype(np.int64))
    return Dataset(
        name="cifar-10",
        train=Split(images[:50_000], labels[:50_000]),
        test=Split(images[50_000:], labels[50_000:]),
        classes=10,
    )


CIFAR_10 = DatasetSpec(
    load=lambda config, home: load(home), locate=locate, downloads=CIFAR_10_FILES
)
