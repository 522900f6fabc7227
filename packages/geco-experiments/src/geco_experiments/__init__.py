"""Runs of constrained VAEs as labelled datasets, and every figure of Taming VAEs from one command.

>>> import geco_experiments
>>> config = geco_experiments.RunConfig()                  # digits, ConvVAE, GECO, kappa 0.1
>>> path = geco_experiments.run(config, "runs")            # doctest: +SKIP
>>> runs = geco_experiments.load("runs")                   # doctest: +SKIP
"""

from geco_experiments.config import (
    DatasetConfig,
    ExecutionConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from geco_experiments.results.combine import load
from geco_experiments.results.store import open_run
from geco_experiments.runtime.errors import (
    DataError,
    GecoError,
    MissingDataError,
    RunError,
    SchemaError,
)
from geco_experiments.training.runner import run

__all__ = [
    "DataError",
    "DatasetConfig",
    "ExecutionConfig",
    "GecoError",
    "MissingDataError",
    "ModelConfig",
    "ObjectiveConfig",
    "RunConfig",
    "RunError",
    "SchemaError",
    "TrainingConfig",
    "__version__",
    "load",
    "open_run",
    "run",
]

__version__ = "0.1.0"
