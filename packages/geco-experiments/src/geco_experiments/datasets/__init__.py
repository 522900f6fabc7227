"""Image datasets by name: read from the data folder, kept as uint8, batched on demand."""

from geco_experiments.config import DatasetConfig
from geco_experiments.data_home import DataHome
from geco_experiments.datasets import celeba, cifar, digits, mnist, olivetti
from geco_experiments.datasets.base import Batch, ImageData, Split, SplitName
from geco_experiments.datasets.views import ColourView, RotateView

__all__ = ["NAMES", "Batch", "ImageData", "Split", "SplitName", "load", "wanted"]

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


def wanted(name: str) -> list[tuple[str, ...]]:
    """For each file of a dataset, the names under which it is looked for."""
    match name:
        case "mnist" | "mnist-rotate" | "color-mnist":
            return mnist.wanted("mnist")
        case "fashion-mnist":
            return mnist.wanted("fashion-mnist")
        case "cifar-10":
            return cifar.wanted()
        case "olivetti":
            return olivetti.wanted()
        case "celeba":
            return celeba.wanted()
    return []
