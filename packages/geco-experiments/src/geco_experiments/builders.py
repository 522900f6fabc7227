"""From a configuration to the model and the objective that it names."""

from typing import Any

import torch
from torch import Tensor, nn

import geco_core
import geco_models
from geco_experiments.classifiers import FEATURE_LAYERS
from geco_experiments.config import ModelConfig, ObjectiveConfig
from geco_experiments.datasets import ImageData
from geco_experiments.errors import RunError

__all__ = ["build_model", "build_objective", "model_input"]


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


def build_objective(config: ObjectiveConfig, classifier: Any = None) -> Any:
    """Create the objective: GECO under one constraint, or a baseline.

    Args:
        config: Which one.
        classifier: A trained classifier for the constraints that look through one.

    Raises:
        ValueError: if a value is outside of the range that the objective allows.
    """
    match config.name:
        case "elbo":
            return geco_core.ELBO(beta=config.beta, sigma=config.sigma)
        case "annealed-elbo":
            return geco_core.AnnealedELBO(
                sigma_start=config.sigma_start,
                sigma_end=config.sigma_end,
                steps=config.anneal_steps,
            )
        case "geco":
            return geco_core.GECO(_constraint(config, classifier), update=_update(config))


def _update(config: ObjectiveConfig) -> geco_core.MultiplierUpdate:
    cls = geco_core.PaperUpdate if config.update == "paper" else geco_core.RobustUpdate
    given = {"rate": config.rate, "decay": config.decay}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return cls(**changes)


def _constraint(config: ObjectiveConfig, classifier: Any) -> nn.Module:
    match config.constraint:
        case "re":
            return geco_core.ReconstructionError(config.kappa)
        case "pncc":
            return geco_core.PatchCrossCorrelation(config.kappa, config.patch_size)
        case "fre":
            features: nn.Module = geco_core.LocalMoments(config.patch_size)
            if config.features == "classifier":
                layer = FEATURE_LAYERS[type(classifier).__name__]
                features = geco_models.FeatureExtractor(classifier, layer)
            return geco_core.FeatureReconstructionError(config.kappa, features)
        case "cla":
            return geco_core.ClassificationAccuracy(config.kappa, classifier)
