"""Reconstruction constraints and the GECO multiplier optimizer for training VAEs in PyTorch."""

from geco_core.baselines import (
    ELBO,
    AnnealedELBO,
    CyclicalELBO,
    FreeBitsELBO,
    OptimalSigmaELBO,
    SetPointELBO,
)
from geco_core.best import BestFeasible, Candidate
from geco_core.constraints import (
    ClassificationAccuracy,
    Equality,
    FeatureReconstructionError,
    LocalMoments,
    NegativeLogLikelihood,
    NetworkFeatures,
    PatchCrossCorrelation,
    PerGroup,
    Proxied,
    Rate,
    ReconstructionError,
    ToleranceConstraint,
    ToleranceRange,
)
from geco_core.constraints.base import CallableConstraint, Constraint
from geco_core.discretized_logistic import DiscretizedLogistic
from geco_core.info import Info
from geco_core.multipliers.paper import PaperUpdate
from geco_core.multipliers.robust import RobustUpdate
from geco_core.multipliers.update import ColumnUpdate, MultiplierUpdate, Observation
from geco_core.objectives import GECO
from geco_core.over_range import Curve

__all__ = [
    "ELBO",
    "GECO",
    "AnnealedELBO",
    "BestFeasible",
    "CallableConstraint",
    "Candidate",
    "ClassificationAccuracy",
    "ColumnUpdate",
    "Constraint",
    "Curve",
    "CyclicalELBO",
    "DiscretizedLogistic",
    "Equality",
    "FeatureReconstructionError",
    "FreeBitsELBO",
    "Info",
    "LocalMoments",
    "MultiplierUpdate",
    "NegativeLogLikelihood",
    "NetworkFeatures",
    "Observation",
    "OptimalSigmaELBO",
    "PaperUpdate",
    "PatchCrossCorrelation",
    "PerGroup",
    "Proxied",
    "Rate",
    "ReconstructionError",
    "RobustUpdate",
    "SetPointELBO",
    "ToleranceConstraint",
    "ToleranceRange",
    "__version__",
]

__version__ = "0.1.0"
