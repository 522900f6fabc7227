"""MNIST and Fashion-MNIST from their idx files."""

from pathlib import Path

import numpy as np
import torch

from geco_experiments.datasets.base import Dataset, PlainView, Split, View
from geco_experiments.datasets.files import count_idx, read_idx, variants
from geco_experiments.datasets.home import DataHome
from geco_experiments.datasets.sources import FASHION_MNIST_FILES, MNIST_FILES
from geco_experiments.datasets.spec import DatasetSpec
from geco_experiments.datasets.views import ColourView, RotateView
from geco_experiments.runtime.errors import DataError

__all__ = [
    "COLOR_MNIST",
    "FASHION_MNIST",
    "FILES",
    "FOLDERS",
    "MNIST",
    "MNIST_ROTATE",
    "load",
    "locate",
    "wanted",
]

FOLDERS = {
    "mnist": ("MNIST/raw", "MNIST", "mnist/raw", "mnist"),
    "fashion-mnist": ("FashionMNIST/raw", "FashionMNIST", "fashion-mnist", "fashion_mnist"),
}
COUNTS = (60_000, 10_000)
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def wanted(family: str) -> list[tuple[str, ...]]:
    """For each of the four files, the places where it may be.

    Some programs unpack `train-images-idx3-ubyte.gz` as `train-images.idx3-ubyte`.
    """
    return [
        variants(name, FOLDERS[family]) + variants(name.replace("-idx", ".idx"), FOLDERS[family])
        for name in FILES
    ]


def locate(home: DataHome, name: str, family: str) -> list[Path]:
    """The four files.

    Raises:
        MissingDataError: if some are not there.
    """
    return home.require(name, wanted(family), f"get them with `geco data fetch {family}`")


def load(
    home: DataHome, *, family: str = "mnist", name: str | None = None, view: View | None = None
) -> Dataset:
    """Read 60,000 training and 10,000 held-out images of 28 x 28 pixels.

    Args:
        home: Where to look.
        family: `mnist` or `fashion-mnist`: whose files.
        name: The dataset's name, if a view makes it another one.
        view: How stored images become model inputs.

    Raises:
        DataError: if files are missing, damaged or do not fit together.
    """
    name = name or family
    paths = locate(home, name, family)
    arrays = [read_idx(path) for path in paths]
    for path, array, dimensions in zip(paths, arrays, (3, 1, 3, 1), strict=True):
        if array.ndim != dimensions or (dimensions == 3 and array.shape[1:] != (28, 28)):
            raise DataError(f"{path} has shape {array.shape}, not that of {family}: replace it")
    splits = []
    for which in (0, 2):
        images, labels = arrays[which], arrays[which + 1]
        if len(images) != len(labels):
            raise DataError(
                f"{paths[which]} has {len(images)} images but {paths[which + 1]} "
                f"{len(labels)} labels: replace them"
            )
        splits.append(
            Split(
                torch.from_numpy(images.copy()).unsqueeze(1),
                torch.from_numpy(labels.astype(np.int64)),
            )
        )
    try:
        return Dataset(
            name=name, train=splits[0], test=splits[1], classes=10, view=view or PlainView()
        )
    except ValueError as error:
        raise DataError(
            f"{paths[0].parent} does not hold {family} ({error}): replace it"
        ) from error


def is_original(home: DataHome, family: str) -> bool:
    """Whether the files found hold as many images as they should.

    Raises:
        MissingDataError: if some are not there.
    """
    paths = locate(home, family, family)
    return [count_idx(path) for path in paths[::2]] == list(COUNTS)


MNIST = DatasetSpec(
    load=lambda config, home: load(home),
    locate=lambda home: locate(home, "mnist", "mnist"),
    downloads=MNIST_FILES,
    is_original=lambda home: is_original(home, "mnist"),
)
FASHION_MNIST = DatasetSpec(
    load=lambda config, home: load(home, family="fashion-mnist"),
    locate=lambda home: locate(home, "fashion-mnist", "fashion-mnist"),
    downloads=FASHION_MNIST_FILES,
    is_original=lambda home: is_original(home, "fashion-mnist"),
)
MNIST_ROTATE = DatasetSpec(
    load=lambda config, home: load(home, name="mnist-rotate", view=RotateView()),
    locate=lambda home: locate(home, "mnist-rotate", "mnist"),
    downloads=MNIST_FILES,
    has_context=lambda config: True,
    is_original=lambda home: is_original(home, "mnist"),
)
COLOR_MNIST = DatasetSpec(
    load=lambda config, home: load(
        home, name="color-mnist", view=ColourView(conditional=config.conditional)
    ),
    locate=lambda home: locate(home, "color-mnist", "mnist"),
    downloads=MNIST_FILES,
    has_context=lambda config: config.conditional,
    is_original=lambda home: is_original(home, "mnist"),
)
