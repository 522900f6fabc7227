"""The parts of a run's configuration, each a frozen dataclass that checks its values."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from geco_experiments import registry
from geco_experiments.config.checks import check_positive, check_types, ends_of

__all__ = [
    "ConstraintName",
    "DatasetConfig",
    "ExecutionConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "TrainingConfig",
]

ObjectiveName = Literal["geco", "elbo", "annealed-elbo", "sigma-vae"]
ConstraintName = Literal["re", "fre", "cla", "pncc"]
FILES = (".npz", ".npy", ".nc")
GRID = 7  # tolerances of a range that a model is evaluated at


@dataclass(frozen=True)
class _End:
    """An end of a range, to be checked as a tolerance is."""

    kappa: float


def _shortest(number: float) -> str:
    """The shortest text of a number, 1 rather than 1.0."""
    return repr(number).removesuffix(".0")


@dataclass(frozen=True)
class DatasetConfig:
    """Which images, how many of them, and in which form.

    Raises:
        TypeError: If a field has a value of the wrong type.
        ValueError: If a field has a value that it cannot have.
    """

    name: Annotated[str, arg(aliases=["--dataset"])] = "digits"
    """A name that `geco data check` lists, or own data: a file (.npz, .npy, .nc) or a folder."""
    train_limit: int | None = None
    """Use only the first so many training images (None: all)."""
    test_limit: int | None = None
    """Use only the first so many held-out images (None: all)."""
    conditional: bool = True
    """color-mnist: give the colour to the model (mnist-rotate always is conditional)."""
    image_size: int = 64
    """celeba: side of the square images, in pixels."""
    array: str | None = None
    """own files: name of the array of data (None: the only one, or x, data, images, train)."""
    labels: str | None = None
    """own files: name of the array of labels (None: labels or y, where there is one)."""
    context: str | None = None
    """own files: name of the array given to the model as context (None: context)."""
    mask: str | None = None
    """own files: name of the array that is true where a value was observed (None: mask)."""
    test_share: float = 0.1
    """own data without a held-out part: the share that is held out, drawn by `split_seed`."""
    split_seed: int = 0
    """own data: seed of that draw."""
    low: float | None = None
    """own data: the value that becomes 0 (None: 0 for bytes and [0, 1], else the smallest)."""
    high: float | None = None
    """own data: the value that becomes 1 (None: 255 for bytes, 1 for [0, 1], else the largest)."""
    path: str | None = None
    """own data: where they lie; filled in from the name."""
    fingerprint: str | None = None
    """own data: what is in them, as a checksum; filled in when they are read."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "train_limit", "test_limit", "image_size")
        if not 0 < self.test_share < 1:
            raise ValueError(f"`test_share` must be above 0 and below 1; got {self.test_share!r}")
        if not 0 <= self.split_seed < 2**31:
            raise ValueError(
                f"`split_seed` must be between 0 and 2**31 - 1; got {self.split_seed!r}"
            )
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"`low` must be below `high`; got {self.low!r} and {self.high!r}")
        known = self.fingerprint is not None or self.looks_like_path
        if not known and self.name not in registry.names("datasets"):
            raise ValueError(
                f"`name`: {registry.unknown('datasets', self.name)}; own data: a file that ends "
                f"with {', '.join(FILES)} or a folder of pictures"
            )

    @property
    def is_built_in(self) -> bool:
        """Whether the name is one of this package's own datasets."""
        return self.fingerprint is None and registry.is_built_in("datasets", self.name)

    @property
    def looks_like_path(self) -> bool:
        """Whether the name stands for a file or folder of own data."""
        if self.path is not None:
            return True
        if not self.name or "\0" in self.name or self.name in registry.names("datasets"):
            return False
        path = Path(self.name)
        # a name alone is a folder only if it is there: else it is a dataset's name, misspelt
        return path.suffix.lower() in FILES or len(path.parts) > 1 or path.exists()

    @property
    def label(self) -> str:
        """The dataset in a word, fit for the name of a folder."""
        if not self.looks_like_path:
            # files that bear a known name and hold something else
            other = self.fingerprint is not None and registry.is_built_in("datasets", self.name)
            return f"{self.name}-other-{(self.fingerprint or '')[:6]}" if other else self.name
        stem = Path(self.path or self.name).absolute()
        name = stem.stem if stem.suffix.lower() in FILES else stem.name
        return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:40] or "data"


@dataclass(frozen=True)
class ModelConfig:
    """Which model and how large; a field that a model does not use is ignored by it.

    Raises:
        TypeError: If a field has a value of the wrong type.
        ValueError: If a field has a value that it cannot have.
    """

    name: Annotated[str, arg(aliases=["--model"])] = "auto"
    """linear-vae, mlp-vae, conv-vae, nvp-vae, conv-draw; auto: conv-vae, mlp-vae for vectors."""
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
    fingerprint: str | None = None
    """a model passed from Python: its architecture, as a checksum; filled in."""

    def __post_init__(self) -> None:
        check_types(self)
        check_positive(self, "latents", "width", "hidden", "draw_stride")
        check_positive(self, "draw_steps", "couplings", most=10_000)
        known = self.fingerprint is not None or self.name == "auto"
        if not known and self.name not in registry.names("models"):
            raise ValueError(f"`name`: {registry.unknown('models', self.name)}")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What training minimises: GECO under a constraint, or one of the three baselines.

    Raises:
        TypeError: If a field has a value of the wrong type.
        ValueError: If a field has a value that it cannot have.
    """

    name: Annotated[ObjectiveName, arg(aliases=["--objective"])] = "geco"
    """geco: KL under a constraint; elbo: fixed beta; annealed-elbo: GQN's schedule; sigma-vae."""
    constraint: Annotated[ConstraintName, arg(aliases=["--constraint"])] = "re"
    """geco: the constraint; docs/constraints.md describes RE, FRE, CLA and PNCC."""
    kappa: Annotated[float | str, arg(aliases=["--kappa"], metavar="FLOAT|LOW..HIGH")] = 0.1
    """geco: the tolerance, for re the RMS error per element, in the data's units (0 to 1); or a
    range such as 0.06..0.2, for one model that serves every tolerance in it."""
    kappa_grid: tuple[float, ...] | None = None
    """geco over a range: the tolerances that the finished model is evaluated at (None: seven in
    equal ratios, from end to end)."""
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
        ends = ends_of("kappa", self.kappa)
        if ends is not None:  # in one form, so that equal ranges have equal names
            object.__setattr__(self, "kappa", "..".join(_shortest(end) for end in ends))
        elif isinstance(self.kappa, str):
            raise TypeError(
                f"`kappa` must be a number or a range such as 0.06..0.2; got {self.kappa!r}"
            )
        check_types(self)
        self._check_range(ends)
        check_positive(
            self, *(() if ends else ("kappa",)), "rate", "beta", "sigma", "sigma_start",
            "sigma_end", "anneal_steps", "patch_size", "classifier_steps",
        )  # fmt: skip
        if self.decay is not None and not 0 <= self.decay < 1:
            raise ValueError(f"`decay` must be at least 0 and below 1; got {self.decay!r}")
        largest = ends[1] if ends else self.kappa
        if self.name == "geco" and self.constraint in ("cla", "pncc") and float(largest) >= 1:
            what = "probability" if self.constraint == "cla" else "correlation"
            raise ValueError(
                f"`kappa` of {self.constraint} is a mean {what}, so it must be between 0 and 1 "
                f"(excluded); got {self.kappa!r}"
            )

    def _check_range(self, ends: tuple[float, float] | None) -> None:
        """What goes with a range of tolerances, and with nothing else."""
        if ends is not None:
            for end in ends:
                check_positive(_End(end), "kappa")
            if self.name != "geco":
                raise ValueError(
                    f"`kappa` can be a range for the objective geco only; got {self.kappa!r} for "
                    f"{self.name}"
                )
        if self.kappa_grid is None:
            return
        if ends is None:
            raise ValueError(
                f"`kappa_grid` goes with a range of tolerances such as kappa 0.06..0.2; got "
                f"{self.kappa_grid!r} for kappa {self.kappa!r}"
            )
        low, high = ends
        inside = all(low <= one <= high for one in self.kappa_grid)
        if not self.kappa_grid or not inside:
            raise ValueError(
                f"`kappa_grid` must hold numbers in the range {self.kappa}; got "
                f"{self.kappa_grid!r}"
            )
        object.__setattr__(self, "kappa_grid", tuple(sorted(set(self.kappa_grid))))

    @property
    def kappa_range(self) -> tuple[float, float] | None:
        """The ends of a range of tolerances; None for one tolerance."""
        return ends_of("kappa", self.kappa) if self.name == "geco" else None

    @property
    def tolerances(self) -> tuple[float, ...]:
        """The tolerances that the finished model is evaluated at; none for the baselines."""
        if self.name != "geco":
            return ()
        ends = self.kappa_range
        if ends is None:
            return (float(self.kappa),)
        if self.kappa_grid is not None:
            return self.kappa_grid
        ratio = ends[1] / ends[0]
        inner = (float(f"{ends[0] * ratio ** (i / (GRID - 1)):.4g}") for i in range(1, GRID - 1))
        return (ends[0], *inner, ends[1])


@dataclass(frozen=True)
class TrainingConfig:
    """The loop: Adam with a rate that is constant at first and then falls as a half cosine.

    Raises:
        TypeError: If a field has a value of the wrong type.
        ValueError: If a field has a value that it cannot have.
    """

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
        check_types(self)
        check_positive(
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
    """How a run is carried out. Recorded, but no part of its name.

    Raises:
        TypeError: If a field has a value of the wrong type.
        ValueError: If a field has a value that it cannot have.
    """

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
        check_types(self)
        check_positive(self, "threads", most=1024)
        if not self.checkpoint_seconds >= 0:
            raise ValueError(
                f"`checkpoint_seconds` must be 0 or more; got {self.checkpoint_seconds!r}"
            )
