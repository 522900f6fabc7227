"""VAE, VAE with RealNVP flows, and ConvDraw in PyTorch, behind one model output."""

from geco_models.checkpoint import load
from geco_models.classifiers import FeatureExtractor, SmallCNN, SmallResNet
from geco_models.conv_draw import ConvDraw
from geco_models.conv_lstm import ConvLSTMCell
from geco_models.flows import AffineCoupling, RealNVP
from geco_models.gaussian import DiagonalGaussian
from geco_models.nvp_vae import NVPVAE
from geco_models.output import ModelOutput
from geco_models.vae import MLPVAE, ConvVAE, LinearVAE

__all__ = [
    "MLPVAE",
    "NVPVAE",
    "AffineCoupling",
    "ConvDraw",
    "ConvLSTMCell",
    "ConvVAE",
    "DiagonalGaussian",
    "FeatureExtractor",
    "LinearVAE",
    "ModelOutput",
    "RealNVP",
    "SmallCNN",
    "SmallResNet",
    "__version__",
    "load",
]

__version__ = "0.1.0"
