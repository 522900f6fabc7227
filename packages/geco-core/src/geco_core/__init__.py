"""Reconstruction constraints and the GECO multiplier optimizer for training VAEs in PyTorch."""

__all__ = ["__version__"]

__version__ = "0.1.0"
