"""Datasets: by name from the data folder, or somebody's own; kept as stored, batched on demand."""

from geco_experiments.datasets.base import Batch, Dataset, ImageData, Split, SplitName
from geco_experiments.datasets.named import (
    choose_model,
    has_context,
    identify,
    load,
    locate,
    needs,
    require,
    spec_of,
)
from geco_experiments.datasets.spec import DatasetSpec

__all__ = [
    "Batch",
    "Dataset",
    "DatasetSpec",
    "ImageData",
    "Split",
    "SplitName",
    "choose_model",
    "has_context",
    "identify",
    "load",
    "locate",
    "needs",
    "require",
    "spec_of",
]
