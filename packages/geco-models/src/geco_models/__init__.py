"""VAE, VAE with RealNVP flows, and ConvDraw in PyTorch, behind one model output."""

__all__ = ["__version__"]

__version__ = "0.1.0"
