r"""One step of ConvDraw: a prior, a posterior and a decoder conv-LSTM around a canvas.

All planes live at the state's resolution. Images are folded into it by space-to-depth (a block of
stride times stride pixels becomes channels), so a step never resamples anything.

At step :math:`t`, from the canvas :math:`r_{t-1}`, its picture :math:`m_{t-1}` (the mean that it
stands for), features :math:`\varphi` of the image :math:`x` and features :math:`\psi` of the
context:

.. math::
    h^p_t &= \mathrm{LSTM}_p(z_{t-1}, \psi), &
    p(z_t | z_{<t}) &= N(\mu_p(h^p_t), \sigma_p(h^p_t)) \\
    h^q_t &= \mathrm{LSTM}_q(\varphi, x, r_{t-1}, m_{t-1} - x, z_{t-1}, \psi), &
    q(z_t | x, z_{<t}) &= N(\mu_q(h^q_t), \sigma_q(h^q_t)) \\
    h^d_t &= \mathrm{LSTM}_d(z_t, \psi), & r_t &= r_{t-1} + W h^d_t

Every gate is linear in what enters it, so the parts of :math:`\varphi`, :math:`x`, :math:`\psi`
and of the :math:`-x` in the error are convolved once per image (`DrawCore.offsets`), not once per
step.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from geco_models.conv_draw.alignment import aligned
from geco_models.conv_draw.conv_lstm import ConvLSTMCell
from geco_models.gaussian import DiagonalGaussian
from geco_models.tolerance import modulations

__all__ = ["DrawCore", "DrawState", "Offsets", "Sources"]


class Sources(NamedTuple):
    """What enters every step unchanged."""

    image: Tensor | None
    """The folded image, (batch, pixels, h, w); None where a model only generates."""

    features: Tensor | None
    r"""The image's features :math:`\varphi`, (batch, features, h, w); None with `image`."""

    context: Tensor | None
    r"""The context's features :math:`\psi`, (batch, features, h, w) or, of a vector,
    (batch, features, 1, 1); None in an unconditional model."""

    kappa: Tensor | None = None
    """The tolerances, (batch,); None in a model without."""


class DrawState(NamedTuple):
    """What a step hands to the next; a batch size of 1 stands for "the same for all examples"."""

    canvas: Tensor
    """The canvas :math:`r`, (batch, canvas channels, h, w)."""

    prior: tuple[Tensor, Tensor]
    """Hidden and cell state of the prior, each (batch, hidden, h, w)."""

    posterior: tuple[Tensor, Tensor]
    """Hidden and cell state of the posterior; idle where a model only generates."""

    decoder: tuple[Tensor, Tensor]
    """Hidden and cell state of the decoder."""

    latent: Tensor
    """The last latent, (batch, latent channels, h, w); zeros before the first step."""


class Offsets(NamedTuple):
    """The parts of the gates that do not change from step to step, (batch, 4 hidden, h, w)."""

    prior: Tensor | None
    """Of the prior's gates: the context."""

    posterior: Tensor | None
    """Of the posterior's gates: image and context; None where a model only generates."""

    decoder: Tensor | None
    """Of the decoder's gates: the context."""

    factors: tuple[tuple[Tensor, Tensor], ...] | None = None
    """What the tolerance multiplies the hidden states of prior, posterior and decoder by, and
    what it adds, each (batch, hidden, 1, 1), before heads and canvas read them."""


class DrawCore(nn.Module):
    r"""Creates the networks of one step (the module's formulas).

    References:
        Towards Conceptual Compression (Gregor et al., 2016), https://arxiv.org/abs/1604.08772

    Args:
        pixels: The channels of an image folded to the state's resolution.
        canvas: The channels of the canvas; None where the canvas is the folded image.
        latent_channels: The channels of :math:`z_t`.
        hidden: The channels of each conv-LSTM's state.
        features: The channels of the features :math:`\varphi` and :math:`\psi`.
        kernel: The odd side of all convolutions over states.
        context_kernel: The odd side of the convolution over the context's features; None for
            an unconditional model.
        tolerance: The range of tolerances that modulate what heads and canvas read; None for none.
    """

    def __init__(
        self,
        pixels: int,
        canvas: int | None,
        latent_channels: int,
        hidden: int,
        features: int,
        kernel: int,
        context_kernel: int | None,
        tolerance: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.own_canvas = canvas is not None
        self.read_from = canvas or 0  # where the picture lies among the posterior's inputs
        self.prior_cell = ConvLSTMCell(latent_channels, hidden, kernel)
        self.posterior_cell = ConvLSTMCell(
            self.read_from + pixels + latent_channels, hidden, kernel
        )
        self.decoder_cell = ConvLSTMCell(latent_channels, hidden, kernel)
        self.image_gates = nn.Conv2d(
            features + pixels, 4 * hidden, kernel, padding="same", bias=False
        )
        self.context_gates = (
            None
            if context_kernel is None
            else nn.Conv2d(features, 12 * hidden, context_kernel, padding="same", bias=False)
        )
        self.prior_head = nn.Conv2d(hidden, 2 * latent_channels, 1)
        self.posterior_head = nn.Conv2d(hidden, 2 * latent_channels, 1)
        self.write = nn.Conv2d(hidden, canvas or pixels, kernel, padding="same", bias=False)
        self.modulations = modulations((hidden, hidden, hidden), tolerance)
        self.reset_heads()

    def reset_heads(self) -> None:
        """Starts both Gaussians near N(0, I), so that the KL of a fresh model is small."""
        for head in (self.prior_head, self.posterior_head):
            nn.init.normal_(head.weight, std=0.1 * head.in_channels**-0.5)
            if head.bias is not None:
                nn.init.zeros_(head.bias)

    def offsets(self, sources: Sources, biased: bool = False) -> Offsets:
        """What image and context add to the gates of every step.

        Args:
            sources: What enters every step unchanged.
            biased: Whether the bias of the posterior's cell is added here, once.
        """
        prior = posterior = decoder = None
        factors = self._factors(sources.kappa)
        if self.context_gates is not None and sources.context is not None:
            prior, posterior, decoder = self.context_gates(sources.context).chunk(3, dim=1)
        if sources.image is None or sources.features is None:
            return Offsets(prior, None, decoder, factors)
        # the error m - x enters through the weights of m: its constant part through their
        # negatives
        features, pixels = sources.features.shape[1], sources.image.shape[1]
        of_error = self.posterior_cell.weight[:, self.read_from : self.read_from + pixels]
        weight = self.image_gates.weight - functional.pad(of_error, (0, 0, 0, 0, features, 0))
        planes = torch.cat((sources.features, sources.image), dim=1)
        seen = aligned(planes, weight, self.posterior_cell.bias if biased else None)
        seen = seen if posterior is None else seen + posterior
        return Offsets(prior, seen, decoder, factors)

    def _factors(self, kappa: Tensor | None) -> tuple[tuple[Tensor, Tensor], ...] | None:
        if self.modulations is None or kappa is None:
            return None
        found = [module.factors(kappa) for module in self.modulations]  # type: ignore[operator]
        return tuple((s[:, :, None, None], t[:, :, None, None]) for s, t in found)

    def step_prior(
        self, state: DrawState, offsets: Offsets
    ) -> tuple[DiagonalGaussian, tuple[Tensor, Tensor]]:
        """The prior of this step's latent, and the prior's next state."""
        hidden, cell = self.prior_cell((self._typed(state.latent),), state.prior, offsets.prior)
        return DiagonalGaussian.from_raw(self.prior_head(_tuned(hidden, offsets, 0))), (
            hidden,
            cell,
        )

    def step_posterior(
        self, state: DrawState, picture: Tensor, offsets: Offsets
    ) -> tuple[DiagonalGaussian, tuple[Tensor, Tensor]]:
        """The posterior of this step's latent, and the posterior's next state."""
        # a canvas that is the picture itself is read once
        own = (state.canvas,) if self.own_canvas else ()
        inputs = (*own, picture, self._typed(state.latent))
        hidden, cell = self.posterior_cell(inputs, state.posterior, offsets.posterior)
        return DiagonalGaussian.from_raw(self.posterior_head(_tuned(hidden, offsets, 1))), (
            hidden,
            cell,
        )

    def step_decoder(
        self, state: DrawState, z: Tensor, offsets: Offsets
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next canvas, and the decoder's next state."""
        hidden, cell = self.decoder_cell((self._typed(z),), state.decoder, offsets.decoder)
        return state.canvas + self.write(_tuned(hidden, offsets, 2)), (hidden, cell)

    def _typed(self, z: Tensor) -> Tensor:
        # latents are float32 at least, whatever the type of the weights
        return z.to(self.write.weight.dtype)


def _tuned(hidden: Tensor, offsets: Offsets, index: int) -> Tensor:
    """A hidden state as a head reads it: scaled and shifted by the tolerance, if there is one."""
    if offsets.factors is None:
        return hidden
    scale, shift = offsets.factors[index]
    return torch.addcmul(shift, hidden, scale)
