"""A hierarchical VAE (in the manner of Child, 2021): the model, and one stochastic layer of it."""

from geco_models.hierarchical_vae.model import HierarchicalPosterior, HierarchicalVAE

__all__ = ["HierarchicalPosterior", "HierarchicalVAE"]
