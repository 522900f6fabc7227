"""From a configuration to the objective that it names: GECO with its constraint, or a baseline."""

from typing import Any

from torch import nn

import geco_core
import geco_models
from geco_experiments.builders.classifiers import FEATURE_LAYERS
from geco_experiments.config import ObjectiveConfig

__all__ = ["build_objective"]


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
