"""Runs of constrained VAEs as labelled datasets, and every figure of Taming VAEs from one command.

>>> import geco_experiments
>>> config = geco_experiments.RunConfig()                  # digits, ConvVAE, GECO, kappa 0.1
>>> path = geco_experiments.run(config, "runs")            # doctest: +SKIP
>>> runs = geco_experiments.load("runs")                   # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from geco_experiments.runtime.errors import (
    DataError,
    GecoError,
    MissingDataError,
    RunError,
    SchemaError,
)

if TYPE_CHECKING:
    from geco_experiments.config import (
        DatasetConfig,
        ExecutionConfig,
        ModelConfig,
        ObjectiveConfig,
        RunConfig,
        TrainingConfig,
    )
    from geco_experiments.datasets import Dataset, DatasetSpec, Split
    from geco_experiments.results import curve, load, open_run
    from geco_experiments.training import run

__all__ = [
    "DataError",
    "Dataset",
    "DatasetConfig",
    "DatasetSpec",
    "ExecutionConfig",
    "GecoError",
    "MissingDataError",
    "ModelConfig",
    "ObjectiveConfig",
    "RunConfig",
    "RunError",
    "SchemaError",
    "Split",
    "TrainingConfig",
    "__version__",
    "curve",
    "load",
    "open_run",
    "run",
]

__version__ = "0.1.0"

# imported when they are asked for: `geco --help` needs none of them, nor torch, nor xarray
_PLACES = {
    "Dataset": "datasets",
    "DatasetConfig": "config",
    "DatasetSpec": "datasets",
    "ExecutionConfig": "config",
    "ModelConfig": "config",
    "ObjectiveConfig": "config",
    "RunConfig": "config",
    "Split": "datasets",
    "TrainingConfig": "config",
    "curve": "results",
    "load": "results",
    "open_run": "results",
    "run": "training",
}


# modules that were imported from here before they moved
_MOVED = {"schema": "results.schema"}


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        return importlib.import_module(f"{__name__}.{_MOVED[name]}")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
