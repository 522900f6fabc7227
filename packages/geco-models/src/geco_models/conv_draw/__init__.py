"""ConvDraw (Gregor et al., 2016): the model, one step of it, its networks, its recurrent cell."""

from geco_models.conv_draw.conv_lstm import ConvLSTMCell
from geco_models.conv_draw.model import ConvDraw, ConvDrawPosterior

__all__ = ["ConvDraw", "ConvDrawPosterior", "ConvLSTMCell"]
