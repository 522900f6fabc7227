"""Ten thousand training images, from the folder that `GECO_DATA_HOME` names."""

from torch import Tensor
from torch.nn.functional import avg_pool2d

from geco_experiments.config import DatasetConfig
from geco_experiments.datasets import load
from geco_experiments.datasets.home import DataHome

IMAGES = 10_000


def images(name: str) -> Tensor:
    """The first images of a dataset's training set in [0, 1], (10000, C, H, W)."""
    config = DatasetConfig(name=name, train_limit=IMAGES)  # type: ignore[arg-type]
    return load(config, DataHome.resolve()).train.images.float().div(255)


def small_mnist() -> Tensor:
    """MNIST averaged over 2 x 2 pixels, as rows of 196 numbers."""
    return avg_pool2d(images("mnist"), 2).flatten(1)
