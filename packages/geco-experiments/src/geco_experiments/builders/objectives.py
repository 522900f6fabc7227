"""From a configuration to the objective that it names: GECO with its constraint, or a baseline."""

from typing import Any

from torch import nn

import geco_core
import geco_models
from geco_experiments.builders.classifiers import FEATURE_LAYERS
from geco_experiments.config import ObjectiveConfig
from geco_experiments.datasets import Dataset
from geco_experiments.runtime.errors import RunError, explained

__all__ = ["build_objective"]


def build_objective(
    config: ObjectiveConfig, classifier: Any = None, data: Dataset | None = None
) -> Any:
    """Create the objective: GECO under one constraint, or a baseline.

    Args:
        config: Which one.
        classifier: A trained classifier for the constraints that look through one.
        data: What it will be asked about, to refuse at once what cannot work.

    Raises:
        RunError: if a value is outside of the range that the objective allows, or it cannot be
            asked about such data.
    """
    with explained(f"the objective {config.name}"):
        objective = _objective(config, classifier)
    if data is not None:
        _check(config, objective, data)
    return objective


def _check(config: ObjectiveConfig, objective: Any, data: Dataset) -> None:
    patches = config.name == "geco" and (
        config.constraint == "pncc"
        or (config.constraint == "fre" and config.features == "moments")
    )
    if patches and len(data.shape) < 2:
        raise RunError(
            f"the constraint {config.constraint} looks at patches of images, but {data.name} has "
            f"rows of shape {data.shape}: choose the constraint re"
        )
    if patches and config.patch_size > min(data.shape[1:]):
        raise RunError(
            f"`objective.patch_size` must be at most {min(data.shape[1:])}, the smaller side of "
            f"the images of {data.name}; got {config.patch_size}"
        )
    if data.train.mask is None:
        return
    constraints = list(objective.constraints.values())
    if not constraints or any("mask" not in (c.keywords or ()) for c in constraints):
        raise RunError(
            f"{data.name} has values that were not observed, which the objective "
            f"{config.constraint if constraints else config.name} cannot leave out: choose geco "
            "with the constraint re"
        )


def _objective(config: ObjectiveConfig, classifier: Any) -> Any:
    match config.name:
        case "elbo":
            return geco_core.ELBO(beta=config.beta, sigma=config.sigma)
        case "annealed-elbo":
            return geco_core.AnnealedELBO(
                sigma_start=config.sigma_start,
                sigma_end=config.sigma_end,
                steps=config.anneal_steps,
            )
        case "sigma-vae":
            return geco_core.OptimalSigmaELBO()
        case "geco":
            return geco_core.GECO(_constraint(config, classifier), update=_update(config))


def _update(config: ObjectiveConfig) -> geco_core.MultiplierUpdate:
    cls = geco_core.PaperUpdate if config.update == "paper" else geco_core.RobustUpdate
    given = {"rate": config.rate, "decay": config.decay}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return cls(**changes)


def _constraint(config: ObjectiveConfig, classifier: Any) -> nn.Module:
    kappa = _tolerance(config)
    match config.constraint:
        case "re":
            return geco_core.ReconstructionError(kappa)
        case "pncc":
            return geco_core.PatchCrossCorrelation(kappa, config.patch_size)
        case "fre":
            features: nn.Module = geco_core.LocalMoments(config.patch_size)
            if config.features == "classifier":
                layer = FEATURE_LAYERS[type(classifier).__name__]
                features = geco_models.FeatureExtractor(classifier, layer)
            return geco_core.FeatureReconstructionError(kappa, features)
        case "cla":
            return geco_core.ClassificationAccuracy(kappa, classifier)


def _tolerance(config: ObjectiveConfig) -> Any:
    ends = config.kappa_range
    return float(config.kappa) if ends is None else geco_core.ToleranceRange(*ends)
