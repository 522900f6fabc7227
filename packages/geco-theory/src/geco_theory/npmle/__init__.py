"""Free masses: the certified global optimum at one temperature [D9]."""

from geco_theory.npmle.certificate import Maxima, ascend
from geco_theory.npmle.mean_shift import Landscape
from geco_theory.npmle.solver import solve_free

__all__ = ["Landscape", "Maxima", "ascend", "solve_free"]
