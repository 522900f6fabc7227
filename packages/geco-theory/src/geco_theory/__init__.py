"""The phase diagram of a dataset: fixed points, critical temperatures, rate and distortion."""

from geco_theory.linear_vae import LinearVAEOptimum, linear_vae_optimum
from geco_theory.phase_transitions import PhaseTransitions

__all__ = ["LinearVAEOptimum", "PhaseTransitions", "__version__", "linear_vae_optimum"]

__version__ = "0.1.0"
