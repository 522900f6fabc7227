"""Pictures; they need matplotlib (``pip install "geco-theory[report]"``).

Every function draws into a new `matplotlib.figure.Figure` and returns it. Nothing global is
touched: no pyplot, no style, no backend.
"""

from geco_theory.plots.latent_grid import plot_latent_geometry, plot_trajectories
from geco_theory.plots.phase_diagram import (
    plot_cluster_tree,
    plot_phase_diagram,
    plot_rate_distortion,
    plot_spectral_comparison,
)

__all__ = [
    "plot_cluster_tree",
    "plot_latent_geometry",
    "plot_phase_diagram",
    "plot_rate_distortion",
    "plot_spectral_comparison",
    "plot_trajectories",
]
