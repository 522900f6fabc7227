"""The phase diagram of a dataset: fixed points, critical temperatures, rate and distortion."""

from geco_theory.advice import advise
from geco_theory.forecast import forecast_rate
from geco_theory.latent_grid.errors import (
    AbstractGridError,
    DifferentiableError,
    FeatureError,
    SquaredError,
)
from geco_theory.latent_grid.geometry import latent_geometry
from geco_theory.latent_grid.grid import LatentGrid, gaussian_grid
from geco_theory.latent_grid.solver import solve_latent_grid
from geco_theory.linear_vae import LinearVAEOptimum, linear_vae_optimum
from geco_theory.phase_transitions import PhaseTransitions
from geco_theory.rate_distortion import bound_margin, free_energy_bound, rate_distortion_curve
from geco_theory.spectral import compare_spectral_clustering
from geco_theory.transitions.detector import detect

__all__ = [
    "AbstractGridError",
    "DifferentiableError",
    "FeatureError",
    "LatentGrid",
    "LinearVAEOptimum",
    "PhaseTransitions",
    "SquaredError",
    "__version__",
    "advise",
    "bound_margin",
    "compare_spectral_clustering",
    "detect",
    "forecast_rate",
    "free_energy_bound",
    "gaussian_grid",
    "latent_geometry",
    "linear_vae_optimum",
    "rate_distortion_curve",
    "solve_latent_grid",
]

__version__ = "0.1.0"
