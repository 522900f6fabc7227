"""The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from geco_experiments.datasets.base import Dataset, Split
from geco_experiments.datasets.spec import DatasetSpec

__all__ = ["DIGITS", "load"]

TEST = 360


def load() -> Dataset:
    """Digits: 1,437 to train on, 360 held out, one fixed permutation; pixels 0..16."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))
    images = torch.from_numpy(bunch.images.astype(np.uint8)[order, None])
    labels = torch.from_numpy(bunch.target.astype(np.int64)[order])
    return Dataset(
        name="digits",
        train=Split(images[:-TEST], labels[:-TEST]),
        test=Split(images[-TEST:], labels[-TEST:]),
        classes=10,
        scale=1 / 16,
        preprocessing="permuted by numpy's default_rng(0), the last 360 held out; stored 0..16",
    )


DIGITS = DatasetSpec(load=lambda config, home: load(), needs="nothing: it is part of scikit-learn")
