"""From a configuration to the model that it names."""

from typing import Any

import torch
from torch import Tensor, nn

import geco_models
from geco_experiments.config import ModelConfig
from geco_experiments.datasets import ImageData
from geco_experiments.runtime.errors import RunError

__all__ = ["build_model", "model_input"]


def build_model(config: ModelConfig, data: ImageData, seed: int) -> Any:
    """Create a model for a dataset, its initial weights drawn from `seed` alone.

    Raises:
        RunError: if the model cannot be conditional but the dataset is.
    """
    if config.name in ("linear-vae", "mlp-vae") and data.context_shape is not None:
        raise RunError(
            f"{config.name} cannot be conditional but {data.name} is: choose conv-vae, nvp-vae or "
            "conv-draw, or another dataset"
        )
    # modules draw their weights from the global generator; the caller's state is put back
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _model(config, data.shape, data.context_shape)


def _model(
    config: ModelConfig, shape: tuple[int, int, int], context_shape: tuple[int, ...] | None
) -> nn.Module:
    match config.name:
        case "linear-vae":
            return geco_models.LinearVAE(torch.Size(shape).numel(), config.latents)
        case "mlp-vae":
            return geco_models.MLPVAE(shape, config.latents, hidden=(config.hidden,))
        case "conv-vae":
            return geco_models.ConvVAE(
                shape, config.latents, width=config.width, context_shape=context_shape
            )
        case "nvp-vae":
            return geco_models.NVPVAE(
                shape,
                config.latents,
                flow=config.flow,
                couplings=config.couplings,
                width=config.width,
                context_shape=context_shape,
            )
        case "conv-draw":
            return geco_models.ConvDraw(
                shape,
                steps=config.draw_steps,
                latent_channels=config.latents,
                hidden=config.width,
                context_shape=context_shape,
                shared=config.shared,
                stride=config.draw_stride,
            )


def model_input(config: ModelConfig, images: Tensor) -> Tensor:
    """Images as the model takes them: rows of numbers for the linear VAE."""
    return images.flatten(1) if config.name == "linear-vae" else images
