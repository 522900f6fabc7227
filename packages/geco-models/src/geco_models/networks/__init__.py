"""Encoders and decoders: convolutional ones, dense ones, and contexts."""

from geco_models.networks.context import ContextEncoder
from geco_models.networks.convolutional import (
    ConvDecoder,
    ConvEncoder,
    halvings,
    suits_convolution,
)
from geco_models.networks.dense import DenseDecoder, DenseEncoder

__all__ = [
    "ContextEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "DenseDecoder",
    "DenseEncoder",
    "halvings",
    "suits_convolution",
]
