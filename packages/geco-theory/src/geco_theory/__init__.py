"""The phase diagram of a dataset: beta-VAE fixed points, critical temperatures, rate and distortion."""

__all__ = ["__version__"]

__version__ = "0.1.0"
