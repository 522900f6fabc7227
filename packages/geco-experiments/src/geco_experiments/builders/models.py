"""From a configuration to the model that it names, or to somebody's own."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import geco_models
from geco_experiments import registry
from geco_experiments.config import ModelConfig
from geco_experiments.datasets import Dataset
from geco_experiments.runtime.errors import RunError, explained

__all__ = [
    "Maker",
    "architecture",
    "build_model",
    "forward_of",
    "model_input",
    "takes_generator",
    "takes_tolerance",
]

Shape = tuple[int, ...]
Ends = tuple[float, float]
Maker = Callable[..., nn.Module]
"""What another package registers: `(config, shape, context_shape) -> model`.

With an argument `tolerance` it is asked for models over a range of tolerances too: its ends, whose
`forward` then takes `kappa`.
"""


def linear_vae(
    config: ModelConfig, shape: Shape, context_shape: Shape | None, tolerance: Ends | None = None
) -> nn.Module:
    """The linear VAE, over flat rows."""
    _unconditional(config, context_shape)
    return geco_models.LinearVAE(torch.Size(shape).numel(), config.latents, tolerance=tolerance)


def mlp_vae(
    config: ModelConfig, shape: Shape, context_shape: Shape | None, tolerance: Ends | None = None
) -> nn.Module:
    """A VAE of one hidden layer, for data of any shape."""
    _unconditional(config, context_shape)
    return geco_models.MLPVAE(shape, config.latents, hidden=(config.hidden,), tolerance=tolerance)


def conv_vae(
    config: ModelConfig, shape: Shape, context_shape: Shape | None, tolerance: Ends | None = None
) -> nn.Module:
    """A convolutional VAE, for images."""
    return geco_models.ConvVAE(
        shape,
        config.latents,
        width=config.width,
        context_shape=context_shape,
        tolerance=tolerance,
    )


def nvp_vae(
    config: ModelConfig, shape: Shape, context_shape: Shape | None, tolerance: Ends | None = None
) -> nn.Module:
    """A VAE with a RealNVP flow in its prior or posterior."""
    return geco_models.NVPVAE(
        shape,
        config.latents,
        flow=config.flow,
        couplings=config.couplings,
        width=config.width,
        context_shape=context_shape,
        tolerance=tolerance,
    )


def conv_draw(
    config: ModelConfig, shape: Shape, context_shape: Shape | None, tolerance: Ends | None = None
) -> nn.Module:
    """Convolutional DRAW, for images."""
    return geco_models.ConvDraw(
        shape,
        steps=config.draw_steps,
        latent_channels=config.latents,
        hidden=config.width,
        context_shape=context_shape,
        shared=config.shared,
        stride=config.draw_stride,
        tolerance=tolerance,
    )


def build_model(
    config: ModelConfig, data: Dataset, seed: int, tolerance: Ends | None = None
) -> Any:
    """Create a model for a dataset, its initial weights drawn from `seed` alone.

    Args:
        config: Which model, and its sizes.
        data: The dataset.
        seed: Of the initial weights.
        tolerance: The ends of the range of tolerances that it takes as an input, if it does.

    Raises:
        RunError: if the model cannot be conditional but the dataset is, refuses its sizes or the
            shape of the data, or takes no tolerances.
    """
    # modules draw their weights from the global generator; the caller's state is put back
    with (
        explained(f"the model {config.name} for data of shape {data.shape}"),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(seed)
        make: Maker = registry.load("models", config.name)
        over = {}
        if tolerance is not None:
            if "tolerance" not in inspect.signature(make).parameters:
                raise RunError(
                    f"the model {config.name} takes no tolerance as an input, so "
                    f"`objective.kappa` must be one number for it; got the range "
                    f"{tolerance[0]:g}..{tolerance[1]:g}"
                )
            over = {"tolerance": tolerance}
        try:
            return make(config, data.shape, data.context_shape, **over)
        except _ConditionalDataError as error:
            raise RunError(
                f"{config.name} cannot be conditional but {data.name} is: choose conv-vae, "
                "nvp-vae or conv-draw, or another dataset"
            ) from error


def model_input(config: ModelConfig, images: Tensor) -> Tensor:
    """Images as the model takes them: rows of numbers for the linear VAE."""
    return images.flatten(1) if config.name == "linear-vae" else images


def architecture(model: nn.Module) -> str:
    """Sixteen hexadecimal digits that stand for a model's class and the shapes in its state."""
    state = [(name, tuple(t.shape), str(t.dtype)) for name, t in model.state_dict().items()
             if isinstance(t, Tensor)]  # fmt: skip
    words = f"{type(model).__module__}.{type(model).__qualname__} {sorted(state)}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def takes_generator(model: nn.Module) -> bool:
    """Whether a model draws its latents from a generator that it is given."""
    return "generator" in _keywords(model)


def takes_tolerance(model: nn.Module) -> bool:
    """Whether a model takes the tolerance as an input."""
    return "kappa" in _keywords(model)


def forward_of(model: nn.Module) -> Callable[..., Any]:
    """How to call a model: with those of context and generator that its `forward` takes.

    Returns:
        A function of the callable (the model itself, compiled or shared among processes), the
        input, the context, the generator, and the tolerances where the run has a range of them.
    """
    keywords = _keywords(model)

    def call(
        module: Any,
        x: Tensor,
        context: Tensor | None,
        generator: torch.Generator | None,
        kappa: Tensor | float | None = None,
    ) -> Any:
        given: dict[str, Any] = {}
        if "context" in keywords:
            given["context"] = context
        if "generator" in keywords:
            given["generator"] = generator
        if kappa is not None:
            given["kappa"] = kappa
        return module(x, **given)

    return call


def _keywords(model: nn.Module) -> frozenset[str]:
    parameters = inspect.signature(model.forward).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return frozenset({"context", "generator", "kappa"})
    return frozenset(p.name for p in parameters)


class _ConditionalDataError(Exception):
    """The model has no place for a context."""


def _unconditional(config: ModelConfig, context_shape: Shape | None) -> None:
    if context_shape is not None:
        raise _ConditionalDataError(config.name)
