"""The studies: one file for each figure, table or claim."""

from geco_experiments import registry
from geco_experiments.studies.all_runs import AllRuns
from geco_experiments.studies.common.final_values import final_values
from geco_experiments.studies.common.profiles import Profile
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.constraints import ConstraintStudy
from geco_experiments.studies.cost import CostOfATarget
from geco_experiments.studies.figure_1 import BlurAndHoles
from geco_experiments.studies.figure_2 import PhaseDiagram
from geco_experiments.studies.figure_3 import Trajectory
from geco_experiments.studies.figure_4 import InformationPlane
from geco_experiments.studies.figure_5 import SameError
from geco_experiments.studies.linear_gaussian import LinearOptimum
from geco_experiments.studies.marginal_kl import MarginalStudy
from geco_experiments.studies.one_run import OneRun
from geco_experiments.studies.spectral import SpectralLink
from geco_experiments.studies.target import TargetStudy

__all__ = [
    "STUDIES",
    "Drawing",
    "Profile",
    "Runs",
    "Study",
    "choose",
    "final_values",
    "names",
]

_SINGLE: tuple[Study, ...] = (
    TargetStudy(),
    BlurAndHoles(),
    PhaseDiagram(),
    Trajectory(),
    InformationPlane(),
    OneRun(),
    SameError(),
    ConstraintStudy(),
    MarginalStudy(),
    LinearOptimum(),
    CostOfATarget(),
    SpectralLink(),
)

STUDIES: tuple[Study, ...] = (*_SINGLE, AllRuns(_SINGLE))


def names() -> tuple[str, ...]:
    """The names of all studies, ours and those of other packages."""
    return (*(study.name for study in STUDIES), *registry.names("studies"))


def choose(wanted: list[str] | None, profile: Profile) -> tuple[list[Study], list[Study]]:
    """The studies to make, and those to put off because the profile cannot decide them.

    Args:
        wanted: Names; None: all of ours that the profile can decide.
        profile: What is to be made.

    Raises:
        ValueError: if what another package offers is no study.
    """
    if wanted is None:
        later = [study for study in _SINGLE if profile.name == "smoke" and not study.in_smoke]
        made = [study for study in _SINGLE if study not in later]
        return [*made, AllRuns(made)], later
    found = [study for study in STUDIES if study.name in wanted]
    for name in wanted:
        if name not in {study.name for study in STUDIES}:
            offered = registry.load("studies", name)
            study = offered() if isinstance(offered, type) else offered
            if not isinstance(study, Study):
                raise ValueError(f"the study {name!r} must be a Study; it is {offered!r}")
            found.append(study)
    return found, []
