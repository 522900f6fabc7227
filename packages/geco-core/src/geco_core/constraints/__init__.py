"""The constraints RE, FRE, CLA and PNCC: one violation per example, satisfied at most 0."""

from geco_core.constraints.classification import ClassificationAccuracy
from geco_core.constraints.cross_correlation import PatchCrossCorrelation
from geco_core.constraints.features import FeatureReconstructionError, LocalMoments
from geco_core.constraints.reconstruction import ReconstructionError
from geco_core.constraints.tolerance import ToleranceConstraint

__all__ = [
    "ClassificationAccuracy",
    "FeatureReconstructionError",
    "LocalMoments",
    "PatchCrossCorrelation",
    "ReconstructionError",
    "ToleranceConstraint",
]
