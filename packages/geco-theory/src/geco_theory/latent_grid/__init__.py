"""Eqs. (3)-(6) on a grid over a latent space of one or two dimensions (Figures 1 and 2)."""

from geco_theory.latent_grid.errors import (
    AbstractGridError,
    DifferentiableError,
    FeatureError,
    SquaredError,
)
from geco_theory.latent_grid.geometry import latent_geometry
from geco_theory.latent_grid.grid import LatentGrid, gaussian_grid
from geco_theory.latent_grid.solver import solve_latent_grid

__all__ = [
    "AbstractGridError",
    "DifferentiableError",
    "FeatureError",
    "LatentGrid",
    "SquaredError",
    "gaussian_grid",
    "latent_geometry",
    "solve_latent_grid",
]
