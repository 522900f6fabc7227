"""The studies: one file for each figure, table or claim."""

from geco_experiments.studies.base import Profile, Runs, Study
from geco_experiments.studies.figure_4 import InformationPlane
from geco_experiments.studies.target import TargetStudy

__all__ = ["STUDIES", "Profile", "Runs", "Study"]

STUDIES: tuple[Study, ...] = (TargetStudy(), InformationPlane())
