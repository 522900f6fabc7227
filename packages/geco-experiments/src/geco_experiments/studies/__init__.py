"""The studies: one file for each figure, table or claim."""

from geco_experiments.studies.all_runs import AllRuns
from geco_experiments.studies.common.profiles import Profile
from geco_experiments.studies.common.study import Runs, Study
from geco_experiments.studies.constraints import ConstraintStudy
from geco_experiments.studies.cost import CostOfATarget
from geco_experiments.studies.figure_1 import BlurAndHoles
from geco_experiments.studies.figure_2 import PhaseDiagram
from geco_experiments.studies.figure_3 import Trajectory
from geco_experiments.studies.figure_4 import InformationPlane
from geco_experiments.studies.figure_5 import SameError
from geco_experiments.studies.linear_gaussian import LinearOptimum
from geco_experiments.studies.marginal_kl import MarginalStudy
from geco_experiments.studies.spectral import SpectralLink
from geco_experiments.studies.target import TargetStudy

__all__ = ["STUDIES", "Profile", "Runs", "Study"]

_SINGLE: tuple[Study, ...] = (
    TargetStudy(),
    BlurAndHoles(),
    PhaseDiagram(),
    Trajectory(),
    InformationPlane(),
    SameError(),
    ConstraintStudy(),
    MarginalStudy(),
    LinearOptimum(),
    CostOfATarget(),
    SpectralLink(),
)

STUDIES: tuple[Study, ...] = (*_SINGLE, AllRuns(_SINGLE))
