"""ConvDraw (Gregor et al., 2016), of one layer and of several: models, steps, recurrent cell."""

from geco_models.conv_draw.conv_lstm import ConvLSTMCell
from geco_models.conv_draw.model import ConvDraw, ConvDrawPosterior
from geco_models.conv_draw.stacked import StackedConvDraw, StackedPosterior

__all__ = [
    "ConvDraw",
    "ConvDrawPosterior",
    "ConvLSTMCell",
    "StackedConvDraw",
    "StackedPosterior",
]
