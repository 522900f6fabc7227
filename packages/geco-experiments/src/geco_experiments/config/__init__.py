"""The whole of a run as frozen dataclasses: written as JSON, hashed into the run's name.

A configuration has two halves. What decides the *result* (`dataset`, `model`, `objective`,
`training`, `seed`) is hashed into the name. How it is carried out (`execution`: device,
compilation, how often a checkpoint is written) is recorded but not hashed, so that an
interrupted run can be resumed elsewhere.
"""

from geco_experiments.config.groups import (
    ConstraintName,
    DatasetConfig,
    ExecutionConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainingConfig,
)
from geco_experiments.config.run import RunConfig, field_paths, replace

__all__ = [
    "ConstraintName",
    "DatasetConfig",
    "ExecutionConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "RunConfig",
    "TrainingConfig",
    "field_paths",
    "replace",
]
