"""Constraints: one violation per example, satisfied at most 0."""

from geco_core.constraints.classification import ClassificationAccuracy
from geco_core.constraints.cross_correlation import PatchCrossCorrelation
from geco_core.constraints.equality import Equality
from geco_core.constraints.features import FeatureReconstructionError, LocalMoments
from geco_core.constraints.groups import PerGroup
from geco_core.constraints.likelihood import NegativeLogLikelihood
from geco_core.constraints.network_features import NetworkFeatures
from geco_core.constraints.proxy import Proxied
from geco_core.constraints.rate import Rate
from geco_core.constraints.reconstruction import ReconstructionError
from geco_core.constraints.tolerance import (
    ComplementTolerance,
    SquaredTolerance,
    ToleranceConstraint,
)
from geco_core.constraints.tolerance_range import ToleranceRange

__all__ = [
    "ClassificationAccuracy",
    "ComplementTolerance",
    "Equality",
    "FeatureReconstructionError",
    "LocalMoments",
    "NegativeLogLikelihood",
    "NetworkFeatures",
    "PatchCrossCorrelation",
    "PerGroup",
    "Proxied",
    "Rate",
    "ReconstructionError",
    "SquaredTolerance",
    "ToleranceConstraint",
    "ToleranceRange",
]
