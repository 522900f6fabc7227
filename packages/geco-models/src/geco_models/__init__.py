"""VAE, VAE with RealNVP flows, and ConvDraw in PyTorch, behind one model output."""

from geco_models.base import AbstractVAE, Options
from geco_models.checkpoint import load
from geco_models.classifiers import (
    AbstractClassifier,
    FeatureExtractor,
    SmallCNN,
    SmallResNet,
    accuracy,
    train_classifier,
)
from geco_models.conv_draw import ConvDraw, ConvLSTMCell, StackedConvDraw
from geco_models.discretized_logistic import DiscretizedLogistic
from geco_models.flows import AffineCoupling, RealNVP
from geco_models.gaussian import DiagonalGaussian, bound_log_variance
from geco_models.hierarchical_vae import HierarchicalVAE
from geco_models.likelihoods import bits_per_dimension
from geco_models.masks import ObservedElements, length_mask
from geco_models.nvp_vae import NVPVAE
from geco_models.output import ModelOutput, Posterior, active_units
from geco_models.tolerance import ToleranceModulation
from geco_models.vae import MLPVAE, ConvVAE, LinearVAE

__all__ = [
    "MLPVAE",
    "NVPVAE",
    "AbstractClassifier",
    "AbstractVAE",
    "AffineCoupling",
    "ConvDraw",
    "ConvLSTMCell",
    "ConvVAE",
    "DiagonalGaussian",
    "DiscretizedLogistic",
    "FeatureExtractor",
    "HierarchicalVAE",
    "LinearVAE",
    "ModelOutput",
    "ObservedElements",
    "Options",
    "Posterior",
    "RealNVP",
    "SmallCNN",
    "SmallResNet",
    "StackedConvDraw",
    "ToleranceModulation",
    "__version__",
    "accuracy",
    "active_units",
    "bits_per_dimension",
    "bound_log_variance",
    "length_mask",
    "load",
    "train_classifier",
]

__version__ = "0.1.0"
