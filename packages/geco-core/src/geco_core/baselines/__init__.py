"""Objectives that GECO is compared with, behind the same calls."""

from geco_core.baselines.gaussian import ELBO, AnnealedELBO, GaussianBaseline, OptimalSigmaELBO
from geco_core.baselines.scheduled import CyclicalELBO, FreeBitsELBO, SetPointELBO

__all__ = [
    "ELBO",
    "AnnealedELBO",
    "CyclicalELBO",
    "FreeBitsELBO",
    "GaussianBaseline",
    "OptimalSigmaELBO",
    "SetPointELBO",
]
