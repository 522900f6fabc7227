"""The whole of a run as frozen dataclasses: written as JSON, hashed into the run's name.

A configuration has two halves. What decides the *result* (`dataset`, `model`, `objective`,
`training`, `seed`) is hashed into the name. How it is carried out (`execution`: device,
compilation, how often a checkpoint is written) is recorded but not hashed, so that an
interrupted run can be resumed elsewhere.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal

from tyro.conf import arg

__all__ = [
    "DatasetConfig",
    "ExecutionConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "RunConfig",
    "TrainingConfig",
    "field_paths",
    "replace",
]

DatasetName = Literal[
    "digits",
    "mnist",
    "fashion-mnist",
    "mnist-rotate",
    "color-mnist",
    "cifar-10",
    "olivetti",
    "celeba",
]
ModelName = Literal["linear-vae", "mlp-vae", "conv-vae", "nvp-vae", "conv-draw"]
ObjectiveName = Literal["geco", "elbo", "annealed-elbo"]
ConstraintName = Literal["re", "fre", "cla", "pncc"]


def _positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"`{name}` must be a finite number above 0; got {value!r}")


def _check_types(config: Any) -> None:
    # a whole number given for a real one becomes a float here: equal configurations must have
    # equal JSON, hence equal names
    hints = typing.get_type_hints(type(config))
    for item in fields(config):
        hint = hints[item.name]
        if not is_dataclass(hint):
            value = _checked(hint, getattr(config, item.name), item.name)
            object.__setattr__(config, item.name, value)


@dataclass(frozen=True)
class DatasetConfig:
    """Which images, how many of them, and in which form."""

    name: Annotated[DatasetName, arg(aliases=["--dataset"])] = "digits"
    """The dataset; `geco data check` lists what is on this machine."""
    train_limit: int | None = None
    """Use only the first so many training images (None: all)."""
    test_limit: int | None = None
    """Use only the first so many held-out images (None: all)."""
    conditional: bool = True
    """color-mnist: give the colour to the model (mnist-rotate always is conditional)."""
    image_size: int = 64
    """celeba: side of the square images, in pixels."""

    def __post_init__(self) -> None:
        _check_types(self)
        _positive(self, "train_limit", "test_limit", "image_size")

    @property
    def has_context(self) -> bool:
        """Whether models are given a context beside the image."""
        return self.name == "mnist-rotate" or (self.name == "color-mnist" and self.conditional)


@dataclass(frozen=True)
class ModelConfig:
    """Which model and how large; a field that a model does not use is ignored by it."""

    name: Annotated[ModelName, arg(aliases=["--model"])] = "conv-vae"
    """The model family."""
    latents: Annotated[int, arg(aliases=["--latents"])] = 32
    """Latent dimensions of the VAEs; conv-draw: latent channels per step."""
    width: int = 32
    """conv-vae, nvp-vae: base width; conv-draw: hidden channels."""
    hidden: int = 400
    """mlp-vae: hidden units."""
    draw_steps: int = 8
    """conv-draw: recurrent steps."""
    draw_stride: int = 2
    """conv-draw: image pixels per cell of its states, along each side."""
    shared: bool = True
    """conv-draw: the same weights at every step."""
    flow: Literal["prior", "posterior"] = "prior"
    """nvp-vae: where the flow sits."""
    couplings: int = 8
    """nvp-vae: affine coupling layers."""

    def __post_init__(self) -> None:
        _check_types(self)
        _positive(self, "latents", "width", "hidden", "draw_steps", "draw_stride", "couplings")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What training minimises: GECO under a constraint, or one of the two baselines."""

    name: Annotated[ObjectiveName, arg(aliases=["--objective"])] = "geco"
    """geco: the KL under a constraint; elbo: fixed beta; annealed-elbo: GQN's schedule."""
    constraint: Annotated[ConstraintName, arg(aliases=["--constraint"])] = "re"
    """geco: the constraint; docs/constraints.md describes RE, FRE, CLA and PNCC."""
    kappa: Annotated[float, arg(aliases=["--kappa"])] = 0.1
    """geco: the tolerance; for re the RMS error per element, in the data's units (0 to 1)."""
    update: Literal["robust", "paper"] = "robust"
    """geco: the multiplier's update; `paper` is Algorithm 1 exactly as printed."""
    rate: float | None = None
    """geco: rate of the multiplier's ascent (None: the update's own default)."""
    decay: float | None = None
    """geco: decay alpha of the constraint's moving average (None: the update's own default)."""
    beta: Annotated[float, arg(aliases=["--beta"])] = 1.0
    """elbo: weight of the KL when the negative log-likelihood has weight 1."""
    sigma: float = 1.0
    """elbo: standard deviation of the Gaussian decoder, in the data's units."""
    sigma_start: float = 2.0
    """annealed-elbo: the decoder's standard deviation at the start."""
    sigma_end: float = 0.7
    """annealed-elbo: and from step `anneal_steps` on."""
    anneal_steps: int = 200_000
    """annealed-elbo: steps over which sigma falls linearly."""
    patch_size: int = 5
    """pncc and fre: side of the patches, in pixels."""
    features: Literal["moments", "classifier"] = "moments"
    """fre: local means and standard deviations of patches, or a classifier's activations."""
    classifier_steps: int = 1200
    """cla, fre: steps that the frozen classifier is trained for, once per dataset."""

    def __post_init__(self) -> None:
        _check_types(self)
        _positive(
            self, "kappa", "rate", "beta", "sigma", "sigma_start", "sigma_end", "anneal_steps",
            "patch_size", "classifier_steps",
        )  # fmt: skip
        if self.decay is not None and not 0 <= self.decay < 1:
            raise ValueError(f"`decay` must be at least 0 and below 1; got {self.decay!r}")


@dataclass(frozen=True)
class TrainingConfig:
    """The loop: Adam with a rate that is constant at first and then falls as a half cosine."""

    steps: Annotated[int, arg(aliases=["--steps"])] = 4000
    """Optimizer steps."""
    batch_size: Annotated[int, arg(aliases=["--batch-size"])] = 128
    """Images per step, over all processes together."""
    learning_rate: Annotated[float, arg(aliases=["--learning-rate"])] = 1e-3
    """Adam's rate during the constant part."""
    constant_share: float = 0.5
    """Share of the steps with the constant rate; the rest is the cosine."""
    final_rate: float = 0.01
    """The rate at the last step, as a share of `learning_rate`."""
    gradient_clip: float | None = None
    """Largest norm of the gradient (None: no clipping)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: the model's forward pass under autocast; the loss stays in float32."""
    evaluation_batch_size: int = 500
    """Images at a time in the final evaluation; decides its noise, hence its last digits."""
    marginal_samples: int = 1000
    """Posteriors n and samples in the Monte Carlo marginal KL (0: not measured)."""

    def __post_init__(self) -> None:
        _check_types(self)
        _positive(
            self, "steps", "batch_size", "learning_rate", "final_rate", "gradient_clip",
            "evaluation_batch_size",
        )  # fmt: skip
        if not 0 <= self.constant_share <= 1:
            raise ValueError(
                f"`constant_share` must be between 0 and 1; got {self.constant_share!r}"
            )
        if self.final_rate > 1:
            raise ValueError(f"`final_rate` must be at most 1; got {self.final_rate!r}")
        if self.marginal_samples < 0:
            raise ValueError(f"`marginal_samples` must be 0 or more; got {self.marginal_samples}")


@dataclass(frozen=True)
class ExecutionConfig:
    """How a run is carried out. Recorded, but no part of its name."""

    device: Annotated[str, arg(aliases=["--device"])] = "auto"
    """A torch device such as `cpu` or `cuda`; `auto` takes an accelerator where there is one."""
    compile: bool = False
    """Compile the model's forward pass with torch.compile."""
    channels_last: bool = False
    """Keep images and convolution weights in channels-last memory format."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints; a killed run repeats at most this much work."""
    threads: int | None = None
    """CPU threads (None: leave torch's setting)."""

    def __post_init__(self) -> None:
        _check_types(self)
        _positive(self, "threads")
        if not self.checkpoint_seconds >= 0:
            raise ValueError(
                f"`checkpoint_seconds` must be 0 or more; got {self.checkpoint_seconds!r}"
            )


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is: two runs with equal configurations have equal names."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    """Seed of the initial weights, the order of the images and the noise."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)

    def __post_init__(self) -> None:
        _check_types(self)
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
        return cls.from_dict(json.loads(text))

    @property
    def identity(self) -> dict[str, Any]:
        """The half that decides the result: everything but `execution`."""
        return {name: value for name, value in self.to_dict().items() if name != "execution"}

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
            parts = ["geco"]
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
        """The tolerance that was asked for; NaN for objectives that have none."""
        return self.objective.kappa if self.objective.name == "geco" else math.nan

    @property
    def name(self) -> str:
        """The run's name and folder: readable parts, then `digest`."""
        parts = [self.dataset.name, self.model.name, self.objective_label]
        if self.objective.name == "geco":
            parts.append(f"kappa{self.objective.kappa:g}")
        return "-".join([*parts, f"seed{self.seed}", self.digest])


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


def _checked(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            raise ValueError(f"`{path}` must be one of {', '.join(allowed)}; got {value!r}")
        return value
    options = typing.get_args(hint) if origin in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option is int and isinstance(value, bool):
            continue
        if isinstance(value, option):
            return value
    raise TypeError(f"`{path}` must be {_words(options)}; got {value!r}")


def _words(options: tuple[Any, ...]) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return " or ".join(names.get(option, "null") for option in options)
