"""Reconstruction constraints and the GECO multiplier optimizer for training VAEs in PyTorch."""

from geco_core.baselines import ELBO, AnnealedELBO
from geco_core.best import BestFeasible, Candidate
from geco_core.constraints import (
    ClassificationAccuracy,
    FeatureReconstructionError,
    LocalMoments,
    PatchCrossCorrelation,
    ReconstructionError,
    ToleranceConstraint,
)
from geco_core.info import Info
from geco_core.objectives import GECO
from geco_core.robust import RobustUpdate
from geco_core.updates import MultiplierUpdate, PaperUpdate
from geco_core.violation import CallableConstraint, Constraint

__all__ = [
    "ELBO",
    "GECO",
    "AnnealedELBO",
    "BestFeasible",
    "CallableConstraint",
    "Candidate",
    "ClassificationAccuracy",
    "Constraint",
    "FeatureReconstructionError",
    "Info",
    "LocalMoments",
    "MultiplierUpdate",
    "PaperUpdate",
    "PatchCrossCorrelation",
    "ReconstructionError",
    "RobustUpdate",
    "ToleranceConstraint",
    "__version__",
]

__version__ = "0.1.0"
