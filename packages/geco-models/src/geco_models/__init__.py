"""VAE, VAE with RealNVP flows, and ConvDraw in PyTorch, behind one model output."""

from geco_models.checkpoint import load
from geco_models.gaussian import DiagonalGaussian
from geco_models.output import ModelOutput

__all__ = ["DiagonalGaussian", "ModelOutput", "__version__", "load"]

__version__ = "0.1.0"
