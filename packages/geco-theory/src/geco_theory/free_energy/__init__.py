"""The free energy of a mixture of decoder values: what every solver moves and asks."""

from geco_theory.free_energy.blahut_arimoto import Moments, moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture, merge_coincident
from geco_theory.free_energy.solution import Solution

__all__ = ["Mixture", "Moments", "Solution", "StandardData", "merge_coincident", "moments"]
