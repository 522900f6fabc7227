"""Image datasets by name: read from the data folder, kept as uint8, batched on demand."""

from collections.abc import Iterable
from pathlib import Path

from geco_experiments.config import DatasetConfig
from geco_experiments.datasets import celeba, cifar, digits, mnist, olivetti
from geco_experiments.datasets.base import Batch, ImageData, Split, SplitName
from geco_experiments.datasets.home import DataHome
from geco_experiments.datasets.views import ColourView, RotateView
from geco_experiments.runtime.errors import MissingDataError

__all__ = [
    "NAMES",
    "Batch",
    "ImageData",
    "Split",
    "SplitName",
    "load",
    "locate",
    "require",
]

NAMES = (
    "digits",
    "mnist",
    "fashion-mnist",
    "mnist-rotate",
    "color-mnist",
    "cifar-10",
    "olivetti",
    "celeba",
)


def load(config: DatasetConfig, home: DataHome) -> ImageData:
    """Read a dataset into memory.

    Raises:
        DataError: if its files are missing (the message names them, the folders searched and
            what to do) or damaged. No other dataset is ever taken instead.
    """
    return _read(config, home).limited(config.train_limit, config.test_limit)


def _read(config: DatasetConfig, home: DataHome) -> ImageData:
    match config.name:
        case "digits":
            return digits.load()
        case "mnist" | "fashion-mnist":
            return mnist.load(home, family=config.name)
        case "mnist-rotate":
            return mnist.load(home, name=config.name, view=RotateView())
        case "color-mnist":
            view = ColourView(conditional=config.conditional)
            return mnist.load(home, name=config.name, view=view)
        case "cifar-10":
            return cifar.load(home)
        case "olivetti":
            return olivetti.load(home)
        case "celeba":
            return celeba.load(home, config.image_size)


def locate(name: str, home: DataHome) -> list[Path]:
    """The files of a dataset, without reading them; none for digits.

    Raises:
        MissingDataError: if some are not there; the message names them, the folders searched and
            what to do.
    """
    match name:
        case "mnist" | "mnist-rotate" | "color-mnist":
            return mnist.locate(home, name, "mnist")
        case "fashion-mnist":
            return mnist.locate(home, name, name)
        case "cifar-10":
            return cifar.locate(home)
        case "olivetti":
            return olivetti.locate(home)
        case "celeba":
            return celeba.locate(home)
    return []


def require(names: Iterable[str], home: DataHome) -> None:
    """Make sure that the files of all datasets are there before any work starts.

    Raises:
        MissingDataError: one message with a line for each dataset that is missing.
    """
    lines: list[str] = []
    for name in dict.fromkeys(names):
        try:
            locate(name, home)
        except MissingDataError as error:
            lines.append(str(error))
    if lines:
        raise MissingDataError("\n".join(lines))
