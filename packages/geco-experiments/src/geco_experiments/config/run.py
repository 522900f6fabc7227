"""The whole of a run as frozen dataclasses: written as JSON, hashed into the run's name."""

import dataclasses
import difflib
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from geco_experiments.config.checks import check_types
from geco_experiments.config.groups import (
    DatasetConfig,
    ExecutionConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainingConfig,
)

__all__ = ["RunConfig", "field_paths", "replace"]

# fields that came later: at their defaults they are no part of the identity, so that the runs of
# earlier versions keep their names
_LATER: dict[str, dict[str, Any]] = {
    "dataset": {
        "fingerprint": None, "array": None, "labels": None, "context": None, "mask": None,
        "test_share": 0.1, "split_seed": 0, "low": None, "high": None,
    },
    "model": {"fingerprint": None},
    "objective": {"kappa_grid": None},
}  # fmt: skip


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is: two runs with equal configurations have equal names.

    Raises:
        TypeError: If a field has a value of the wrong type.
        ValueError: If `seed` is not between 0 and 2^31 - 1.
    """

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    """Which data, how many of them, and in which form."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Which model and how large; a field that a model does not use is ignored by it."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What training minimises: GECO under a constraint, or a baseline."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The loop: Adam with a rate that is constant at first and then falls as a half cosine."""
    seed: int = 0
    """Seed of the initial weights, the order of the images and the noise."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    """How the run is carried out; recorded, but no part of its name."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.model.name == "auto" and self.dataset.is_built_in:  # images, all of them
            object.__setattr__(self, "model", dataclasses.replace(self.model, name="conv-vae"))
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"`seed` must be between 0 and 2**31 - 1; got {self.seed!r}")

    def to_dict(self) -> dict[str, Any]:
        """The configuration as nested dictionaries of JSON types."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The configuration as one line of JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Build a configuration from `to_dict`'s output.

        Raises:
            ValueError: for a field that this version does not know or a value out of range.
            TypeError: for a value of the wrong type.
        """
        config: RunConfig = _build(cls, values, "")
        return config

    @classmethod
    def from_json(cls, text: str) -> "RunConfig":
        """Build a configuration from `to_json`'s output; errors as in `from_dict`."""
        try:
            values = json.loads(text)
        except RecursionError as error:
            raise ValueError("the configuration is nested without end") from error
        return cls.from_dict(values)

    @property
    def identity(self) -> dict[str, Any]:
        """The half that decides the result: everything but `execution` and where data lie."""
        values = self.to_dict()
        del values["execution"], values["dataset"]["path"]
        for group, later in _LATER.items():
            for name, default in later.items():
                if values[group][name] == default:
                    del values[group][name]
        return values

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of the sha256 of `identity`."""
        text = json.dumps(self.identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def objective_label(self) -> str:
        """The objective in a word: the label along `objective` in combined results."""
        objective = self.objective
        if objective.name == "geco":
            parts = ["geco"] if objective.kappa_range is None else ["geco-range"]
            if objective.constraint != "re":
                parts.append(objective.constraint)
            if objective.update != "robust":
                parts.append(objective.update)
            return "-".join(parts)
        if objective.name == "elbo" and objective.beta != 1:
            return f"elbo-beta{objective.beta:g}"
        return objective.name

    @property
    def kappa(self) -> float:
        """The tolerance that was asked for; NaN for objectives that have none or many."""
        objective = self.objective
        one = objective.name == "geco" and objective.kappa_range is None
        return float(objective.kappa) if one else math.nan

    @property
    def name(self) -> str:
        """The run's name and folder: readable parts, then `digest`."""
        parts = [self.dataset.label, self.model.name, self.objective_label]
        if self.objective.name == "geco":
            parts.append(f"kappa{_tolerance(self.objective.kappa)}")
        return "-".join([*parts, f"seed{self.seed}", self.digest])


def _tolerance(kappa: float | str) -> str:
    return kappa if isinstance(kappa, str) else f"{kappa:g}"


def replace(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A copy with some fields changed, named by dotted path (`objective.kappa`).

    Raises:
        ValueError: if a path names no field.
    """
    values = config.to_dict()
    for path, value in changes.items():
        *groups, last = path.split(".")
        target: Any = values
        for group in groups:
            target = target.get(group) if isinstance(target, dict) else None
        if not isinstance(target, dict) or last not in target:
            raise ValueError(f"`{path}` names no field of a run; {_near(path)}")
        target[last] = value
    return RunConfig.from_dict(values)


def field_paths() -> dict[str, Any]:
    """Dotted path -> type of every leaf field of a run."""
    paths: dict[str, Any] = {}

    def walk(cls: type, prefix: str) -> None:
        hints = typing.get_type_hints(cls)
        for item in fields(cls):
            hint = hints[item.name]
            if is_dataclass(hint):
                walk(typing.cast(type, hint), f"{prefix}{item.name}.")
            else:
                paths[prefix + item.name] = hint

    walk(RunConfig, "")
    return paths


def _near(path: str) -> str:
    close = difflib.get_close_matches(path, field_paths(), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else "see `geco run --help`"


def _build(cls: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise TypeError(f"`{prefix.rstrip('.') or 'config'}` must be a mapping; got {values!r}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"`{prefix}{unknown[0]}` names no field of a run; {_near(unknown[0])}")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        if is_dataclass(hint):
            arguments[name] = _build(typing.cast(type, hint), value, f"{prefix}{name}.")
        else:
            arguments[name] = value
    return cls(**arguments)
