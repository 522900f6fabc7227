r"""ConvDraw with stacked layers: several maps of latents in every step, drawn top-down.

At step :math:`t`, with the layers :math:`l = 1` (next to the image) to :math:`L`, the canvas
:math:`r`, its picture :math:`m`, features :math:`\varphi` of the image and :math:`\psi` of the
context:

.. math::
    h^q_1 &= \mathrm{LSTM}(\varphi, r, m - x, z_1^{t-1}, \psi), &
    h^q_l &= \mathrm{LSTM}(h^q_{l-1}, z_l^{t-1}, \psi) && \text{upwards} \\
    h^p_l &= \mathrm{LSTM}(z_l^{t-1}, \psi), &
    p(z_l) &= N(\mu, \sigma)(h^p_l, h^d_{l+1}) && \text{downwards} \\
    q(z_l) &= N(\mu, \sigma)(h^q_l, h^d_{l+1}), &
    h^d_l &= \mathrm{LSTM}(z_l, h^d_{l+1}, \psi), & r &\leftarrow r + W h^d_1

The recurrent states carry over from step to step; :math:`h^d_{L+1}` is left out. The KL is the sum
over steps and layers of the exact KL between two Gaussians, along the drawn path.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from geco_models.base import AbstractVAE, Condition, Options
from geco_models.conv_draw.conv_lstm import ConvLSTMCell
from geco_models.conv_draw.network import PictureNetwork, picture_arguments
from geco_models.gaussian import DiagonalGaussian, standard_normal
from geco_models.output import ModelOutput
from geco_models.path_posterior import PathPosterior
from geco_models.tolerance import modulated, modulations
from geco_models.validation import as_positive, as_shape

__all__ = ["StackedConvDraw", "StackedPosterior"]

State = tuple[Tensor, Tensor]


class _Walk(NamedTuple):
    """What one pass over the steps has met; the layers of a step lie along the channels."""

    numbers: Tensor  # of the decoder
    latents: list[Tensor]
    kl: list[Tensor]  # of each latent of a step; empty where nothing was encoded
    log_p: Tensor
    log_q: Tensor


class _Layer(nn.Module):
    """The networks of one layer: prior, posterior and decoder."""

    def __init__(
        self,
        seen: int,
        above: int,
        context: int,
        latent: int,
        hidden: int,
        kernel: int,
        tolerance: tuple[float, float] | None,
    ) -> None:
        super().__init__()
        self.prior_cell = ConvLSTMCell(latent + context, hidden, kernel)
        self.posterior_cell = ConvLSTMCell(seen + latent + context, hidden, kernel)
        self.decoder_cell = ConvLSTMCell(latent + above + context, hidden, kernel)
        self.prior_head = nn.Conv2d(hidden + above, 2 * latent, 1)
        self.posterior_head = nn.Conv2d(hidden + above, 2 * latent, 1)
        # of the hidden states of prior, posterior and decoder, where heads and canvas read them
        self.modulations = modulations((hidden,) * 3, tolerance)
        for head in (self.prior_head, self.posterior_head):
            # both Gaussians start near N(0, I)
            nn.init.normal_(head.weight, std=0.1 * head.in_channels**-0.5)
            if head.bias is not None:
                nn.init.zeros_(head.bias)


class StackedConvDraw(AbstractVAE):
    r"""Creates a ConvDraw model of several layers, unconditional or conditional.

    The layers share one resolution. The picture is linear in the canvas, as in `ConvDraw`, whose
    arguments mean the same here; steps are not computed again in the backward pass.

    References:
        Towards Conceptual Compression (Gregor et al., 2016), https://arxiv.org/abs/1604.08772

    Args:
        shape: The shape (C, H, W) of one image.
        steps: The number of steps.
        layers: The number of layers.
        latent_channels: The channels of each latent map, one number or one for each layer, the
            layer next to the image first.
        hidden: The channels of the recurrent states of each layer.
        context_shape: The shape of one context: planes (C, H, W), a vector (F,), or None for an
            unconditional model.
        shared: Whether all steps use the same weights.
        stride: Image pixels per state cell along each side.
        kernel: The odd side of the convolutions over states.
        features: The channels of the features of image and context; None for as many as `hidden`.
        canvas: The number of canvas channels; None for a canvas that is the image itself.
        **options: See `Options`.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is too small, `kernel` is even, or there are neither one nor as many
            `latent_channels` as layers.
    """

    def __init__(
        self,
        shape: Sequence[int],
        steps: int = 8,
        layers: int = 2,
        latent_channels: int | Sequence[int] = 8,
        hidden: int = 64,
        context_shape: Sequence[int] | None = None,
        shared: bool = True,
        *,
        stride: int = 2,
        kernel: int = 3,
        features: int | None = None,
        canvas: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        layers = as_positive(layers, "layers")
        if isinstance(latent_channels, Sequence):
            channels = as_shape(latent_channels, "latent_channels")
        else:
            channels = (as_positive(latent_channels, "latent_channels"),) * layers
        config = {
            "shape": shape,
            "steps": steps,
            "layers": layers,
            "latent_channels": channels,
            "hidden": hidden,
            "context_shape": context_shape,
            "shared": shared,
            "stride": stride,
            "kernel": kernel,
            "features": features,
            "canvas": canvas,
        }
        super().__init__(as_shape(shape, dims=(3,)), config, context_shape, **options)
        if len(channels) != layers:
            msg = (
                f"`latent_channels` must be one number or {layers} (one per layer), got {channels}"
            )
            raise ValueError(msg)
        self.steps = as_positive(steps, "steps")
        self.channels = channels
        given = picture_arguments(self, hidden, features, stride, kernel, canvas)
        self.picture = PictureNetwork(**given)
        self.picture.reset_canvas()
        context = 0 if self.picture.context_kernel is None else given["features"]
        # features, canvas (unless it is the picture) and error
        seen = given["features"] + (canvas or 0) + self.picture.pixels
        self.cores = nn.ModuleList(
            nn.ModuleList(
                _Layer(
                    hidden if layer else seen,
                    hidden if layer + 1 < layers else 0,
                    context,
                    latent,
                    hidden,
                    kernel,
                    self.tolerance,
                )
                for layer, latent in enumerate(channels)
            )
            for _ in range(1 if shared else self.steps)
        )
        self.write = nn.Conv2d(
            hidden, canvas or self.picture.pixels, kernel, padding="same", bias=False
        )
        self.latent_shape = (self.steps, sum(channels), *self.picture.size)
        # hidden and cell state of prior, posterior and decoder of each layer, learned
        self.first_states = nn.Parameter(0.1 * torch.randn(6 * layers, hidden, *self.picture.size))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def latents_shape(self) -> tuple[int, ...]:
        """The latents of one example, (steps, channels of all layers, h, w)."""
        return self.latent_shape

    def infer(
        self, u: Tensor, condition: Condition, generator: torch.Generator | None
    ) -> ModelOutput:
        """Encodes and paints, step by step; `kl_steps` of the output has the KL of each step."""
        walk = self._walk(u, condition, self._noise(u.shape[0], generator), drawn=False)
        mean, distribution = self.observe(walk.numbers)
        kl = torch.stack(walk.kl, dim=1)
        kl_steps = kl.sum((2, 3, 4))
        latents = torch.stack(walk.latents, dim=1)
        return ModelOutput(mean, kl_steps.sum(1), latents, kl_steps, kl, distribution)

    def encode(self, u: Tensor, condition: Condition) -> "StackedPosterior":
        """The posterior over the latents of all steps and layers, for each example."""
        return StackedPosterior(self, u, condition)

    def draw(self, n: int, condition: Condition, generator: torch.Generator | None) -> Tensor:
        """Paints from the prior alone."""
        return self._walk(None, condition, self._noise(n, generator), drawn=False).numbers

    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        """What given latents paint."""
        return self._walk(None, condition, z, drawn=True).numbers

    def log_prior(self, z: Tensor, condition: Condition) -> Tensor:
        """The log-density of the prior along given latents, in nats, (batch,)."""
        return self._walk(None, condition, z, drawn=True).log_p

    def _noise(self, batch: int, generator: torch.Generator | None) -> Tensor:
        return standard_normal((batch, *self.latent_shape), self.reference(), generator)

    def _walk(self, u: Tensor | None, condition: Condition, numbers: Tensor, drawn: bool) -> _Walk:
        """All steps over latents (`drawn`) or noise, from the posterior where there are data."""
        image, features, context, kappa = self.picture.sources(u, *condition)
        batch, size = numbers.shape[0], self.picture.size
        psi = () if context is None else (context.expand(batch, -1, *size),)
        first = self.first_states.unsqueeze(1).expand(-1, batch, *self.first_states.shape[1:])
        states = [(first[i], first[i + 1]) for i in range(0, len(first), 2)]
        latents = [numbers.new_zeros(batch, count, *size) for count in self.channels]
        canvas = self.picture.first_canvas.expand(batch, *self.picture.first_canvas.shape[1:])
        drawn_latents, kls, log_p, log_q = [], [], [], []
        for step, number in enumerate(numbers.unbind(1)):
            layers: Sequence[_Layer] = self.cores[step % len(self.cores)]  # type: ignore[assignment]
            seen: Tensor | None = None
            if image is not None and features is not None:
                picture = self.picture.picture(canvas)
                own = () if self.picture.readout is None else (canvas,)
                seen = torch.cat((features, *own, picture - image), dim=1)
                for layer, part in enumerate(layers):  # upwards
                    inputs = (seen, self.like_weights(latents[layer]), *psi)
                    states[3 * layer + 1] = part.posterior_cell(inputs, states[3 * layer + 1])
                    seen = states[3 * layer + 1][0]
            above: tuple[Tensor, ...] = ()
            kl: list[Tensor] = []
            parts = torch.split(number, list(self.channels), dim=1)
            for layer in reversed(range(len(layers))):  # downwards
                part, known = layers[layer], self.like_weights(latents[layer])
                states[3 * layer] = part.prior_cell((known, *psi), states[3 * layer])
                source = prior = _head(part, 0, states[3 * layer], above, kappa)
                if seen is not None:
                    source = _head(part, 1, states[3 * layer + 1], above, kappa)
                    kl.insert(0, source.kl_per_dimension(prior))
                z = parts[layer] if drawn else source.draw(parts[layer])
                log_p.append(prior.log_prob(z))
                log_q.append(source.log_prob(z))
                latents[layer] = z
                inputs = (self.like_weights(z), *above, *psi)
                states[3 * layer + 2] = part.decoder_cell(inputs, states[3 * layer + 2])
                above = (modulated(part.modulations, 2, states[3 * layer + 2][0], kappa),)
            canvas = canvas + self.write(above[0])
            drawn_latents.append(torch.cat(latents, dim=1))
            if kl:
                kls.append(torch.cat(kl, dim=1))
        return _Walk(
            self.picture.numbers(canvas, states[2][0]),
            drawn_latents,
            kls,
            torch.stack(log_p).sum(0),
            torch.stack(log_q).sum(0),
        )


def _head(
    layer: _Layer, which: int, state: State, above: tuple[Tensor, ...], kappa: Tensor | None
) -> DiagonalGaussian:
    """The prior (0) or the posterior (1) of a layer, of its state and the decoder's above."""
    head = (layer.prior_head, layer.posterior_head)[which]
    hidden = modulated(layer.modulations, which, state[0], kappa)
    return DiagonalGaussian.from_raw(head(torch.cat((hidden, *above), dim=1)))


class StackedPosterior(PathPosterior):
    r"""The batch of densities :math:`\prod_t \prod_l q(z_l^t | x, z^{<t}, z_{>l}^t)`.

    Args:
        model: The model.
        u: Checked images in the networks' units, (batch, C, H, W).
        condition: The checked context and tolerances.
    """

    def __init__(self, model: StackedConvDraw, u: Tensor, condition: Condition) -> None:
        super().__init__(model, len(u))
        self._u, self._condition = u, condition

    def _walk(self, numbers: Any, drawn: bool) -> tuple[Tensor, Tensor]:
        numbers = numbers.expand(self._batch, *self._model.latent_shape)
        walk = self._model._walk(self._u, self._condition, numbers, drawn)
        return torch.stack(walk.latents, dim=1), walk.log_q
