"""Equal masses: branches of tiles that split and merge over temperature [D3]."""

from geco_theory.deterministic_annealing.solver import solve_equal

__all__ = ["solve_equal"]
