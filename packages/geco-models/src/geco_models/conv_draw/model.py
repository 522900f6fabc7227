r"""ConvDraw: a recurrent latent-variable model that paints a canvas in several steps.

One latent map :math:`z_t` a step, drawn from a prior that has seen the earlier ones; the density
of all is :math:`p(z_{1..T}) = \prod_t p(z_t | z_{<t})`, that of the posterior
:math:`q(z_{1..T} | x) = \prod_t q(z_t | x, z_{<t})`, and the KL is the sum over steps of exact
Gaussian KLs along the drawn path. `geco_models.conv_draw.step` has the formulas of one step.
"""

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from geco_models.base import AbstractVAE, Condition, Options
from geco_models.conv_draw.conv_lstm import traced
from geco_models.conv_draw.network import DrawNetwork, picture_arguments
from geco_models.conv_draw.step import DrawState
from geco_models.conv_draw.unrolled import (
    Carry,
    StepParts,
    finish,
    prepare,
    unrolled_step,
)
from geco_models.gaussian import standard_normal
from geco_models.output import ModelOutput
from geco_models.path_posterior import PathPosterior
from geco_models.validation import as_positive, as_shape

__all__ = ["ConvDraw", "ConvDrawPosterior"]


class ConvDraw(AbstractVAE):
    r"""Creates a ConvDraw model, unconditional or conditional.

    The reconstruction is the last canvas itself (a 1x1 convolution of it where the canvas has
    channels of its own): linear, so that the squared error keeps its gradient where pixels are 0
    or 1, and therefore not confined to [0, 1]. A sigmoid there makes a model of mostly black
    images stop at the black image. Images whose sides are no multiples of the stride are
    continued at the right and lower edge and cropped again at the end.

    References:
        Towards Conceptual Compression (Gregor et al., 2016), https://arxiv.org/abs/1604.08772

    Args:
        shape: The shape (C, H, W) of one image.
        steps: The number of steps :math:`T`.
        latent_channels: The channels of each latent map :math:`z_t`.
        hidden: The channels of the three recurrent states.
        context_shape: The shape of one context: planes (C, H, W), resampled by area where they
            are not of the image's height and width, or a vector (F,); None for an unconditional
            model.
        shared: Whether all steps use the same weights.
        stride: Image pixels per state cell along each side: states and latents are
            :math:`\lceil H / stride \rceil \times \lceil W / stride \rceil`.
        kernel: The odd side of the convolutions over states.
        features: The channels of the features of image and context that enter every step; None
            for as many as `hidden`. They are computed once, so width is cheap here.
        canvas: The number of canvas channels at the state's resolution; None for a canvas that
            is the image itself, :math:`C \cdot stride^2` channels.
        checkpoint: Whether a training step forgets the inside of each step and computes it again
            in the backward pass: less memory, a third more work.
        **options: See `Options`. The canvas of a Bernoulli likelihood holds
            logits; the scales of a likelihood with one for each pixel are read from the decoder's
            last hidden state.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is too small, or `kernel` is even.
    """

    def __init__(
        self,
        shape: Sequence[int],
        steps: int = 8,
        latent_channels: int = 8,
        hidden: int = 64,
        context_shape: Sequence[int] | None = None,
        shared: bool = True,
        *,
        stride: int = 2,
        kernel: int = 3,
        features: int | None = None,
        canvas: int | None = None,
        checkpoint: bool = False,
        **options: Unpack[Options],
    ) -> None:
        config = {
            "shape": shape,
            "steps": steps,
            "latent_channels": latent_channels,
            "hidden": hidden,
            "context_shape": context_shape,
            "shared": shared,
            "stride": stride,
            "kernel": kernel,
            "features": features,
            "canvas": canvas,
            "checkpoint": checkpoint,
        }
        super().__init__(as_shape(shape, dims=(3,)), config, context_shape, **options)
        self.steps = as_positive(steps, "steps")
        self.checkpoint = bool(checkpoint)
        latent_channels = as_positive(latent_channels, "latent_channels")
        self.network = DrawNetwork(
            self.steps,
            latent_channels,
            bool(shared),
            self.tolerance,
            picture_arguments(self, hidden, features, stride, kernel, canvas),
        )
        self.latent_shape = (self.steps, latent_channels, *self.network.size)
        # the layout of the weights is the one that convolutions run in, whatever that of `x` is;
        # this one is the faster on CPU (oneDNN) and on GPU (tensor cores)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _noise(self, batch: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        """The noise of all steps, drawn at once: recomputing a step then draws nothing."""
        shape = (self.steps, batch, *self.latent_shape[1:])
        noise = standard_normal(shape, self.reference(), generator).flatten(0, 1)
        # in the layout of the activations
        noise = noise.contiguous(memory_format=torch.channels_last)
        return noise.split(batch)  # type: ignore[no-untyped-call,no-any-return]

    def infer_step(
        self, carry: Carry, parts: StepParts, noise: Tensor
    ) -> tuple[Carry, Tensor, Tensor, Tensor]:
        """One step of `forward`: `geco_models.conv_draw.unrolled.unrolled_step`.

        Compiling this method alone, `draw.infer_step = torch.compile(draw.infer_step)`, takes a
        fraction of the time that the whole model takes, which is unrolled over all steps.

        Args:
            carry: The state before it.
            parts: What this step applies.
            noise: Standard normal noise, (batch, latent channels, h, w).

        Returns:
            The next state, the posterior's statistics, the latent, and what prior head and
            canvas read.
        """
        return unrolled_step(carry, parts, noise)

    @property
    def latents_shape(self) -> tuple[int, ...]:
        """The latents of one example, (steps, latent channels, h, w)."""
        return self.latent_shape

    def infer(
        self, u: Tensor, condition: Condition, generator: torch.Generator | None
    ) -> ModelOutput:
        """Encodes and paints, step by step.

        `latents` of the output are (batch, steps, latent channels, h, w); `kl_steps` has the KL
        of each step.
        """
        sources = self.network.sources(u, *condition)
        batch = u.shape[0]
        again = self.checkpoint and torch.is_grad_enabled()
        # not where a step is computed again, to save the memory that sharing takes, nor where it
        # was replaced by a compiled one, which takes tensors only
        replaced = "infer_step" in vars(self)
        share = torch.is_grad_enabled() and not (again or replaced or traced())
        prepared = prepare(self.network, sources, self.steps, share)
        carry = prepared.carry
        statistics, latents, shown = [], [], []
        for arguments in zip(prepared.parts, self._noise(batch, generator), strict=True):
            if again:
                carry, found, z, read = recompute(
                    self.infer_step,
                    carry,
                    *arguments,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                carry, found, z, read = self.infer_step(carry, *arguments)
            statistics.append(found)
            latents.append(z)
            shown.append(read)
        kl = finish(self.network, prepared, statistics, shown, batch)
        kl_steps = kl.sum((1, 2, 3)).view(self.steps, batch).T
        numbers = self.network.numbers(carry.canvas, carry.pair[0])
        mean, distribution = self.observe(numbers)
        return ModelOutput(
            mean,
            kl_steps.sum(1),
            torch.stack(latents, dim=1),
            kl_steps,
            kl.view(self.steps, batch, *kl.shape[1:]).transpose(0, 1),
            distribution,
        )

    def encode(self, u: Tensor, condition: Condition) -> "ConvDrawPosterior":
        """The posterior over the latents of all steps, for each example."""
        return ConvDrawPosterior(self, u, condition)

    def draw(self, n: int, condition: Condition, generator: torch.Generator | None) -> Tensor:
        """Paints from the prior alone; the posterior's networks take no part."""
        return self._painted(condition, self._noise(n, generator), drawn=False)

    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        """What given latents of all steps, (batch, steps, latent channels, h, w), paint."""
        return self._painted(condition, z.unbind(1), drawn=True)

    def log_prior(self, z: Tensor, condition: Condition) -> Tensor:
        r"""The log-density :math:`\sum_t \ln p(z_t | z_{<t})` in nats, (batch,)."""
        return self._paint(condition, z.unbind(1), drawn=True)[1]

    def _painted(self, condition: Condition, numbers: Sequence[Tensor], drawn: bool) -> Tensor:
        """The numbers of the last canvas over latents (`drawn`) or noise."""
        state, _ = self._paint(condition, numbers, drawn)
        return self.network.numbers(state.canvas, state.decoder[0])

    def _paint(
        self, condition: Condition, numbers: Sequence[Tensor], drawn: bool
    ) -> tuple[DrawState, Tensor]:
        """Prior and decoder over latents (`drawn`) or noise: the last state, the log-density."""
        sources = self.network.sources(None, *condition)
        offsets = self.network.offsets(sources)
        state = self.network.start()
        total = numbers[0].new_zeros(())
        for step, number in enumerate(numbers):
            core = self.network.core(step)
            known = core.offsets(sources) if offsets is None else offsets
            prior, prior_state = core.step_prior(state, known)
            z = number if drawn else prior.draw(number)
            total = total + prior.log_prob(z)
            canvas, decoder_state = core.step_decoder(state, z, known)
            state = DrawState(canvas, prior_state, state.posterior, decoder_state, z)
        return state, total


class ConvDrawPosterior(PathPosterior):
    r"""The batch of densities :math:`q(z_{1..T} | x) = \prod_t q(z_t | x, z_{<t})`.

    Args:
        model: The model.
        u: Checked images in the networks' units, (batch, C, H, W).
        condition: The checked context and tolerances.
    """

    def __init__(self, model: ConvDraw, u: Tensor, condition: Condition) -> None:
        super().__init__(model, len(u))
        self._sources = model.network.sources(u, *condition)
        self._offsets = model.network.offsets(self._sources)

    def _walk(self, numbers: Any, drawn: bool) -> tuple[Tensor, Tensor]:
        """Posterior and decoder; canvases of one path for all examples are painted only once."""
        numbers = numbers.unbind(1) if drawn else numbers
        network = self._model.network
        state = network.start()
        latents, total = [], numbers[0].new_zeros(())
        for step, number in enumerate(numbers):
            core = network.core(step)
            known = core.offsets(self._sources) if self._offsets is None else self._offsets
            picture = network.picture(state.canvas)
            posterior, posterior_state = core.step_posterior(state, picture, known)
            z = number if drawn else posterior.draw(number)
            latents.append(z)
            total = total + posterior.log_prob(z)
            canvas, decoder_state = core.step_decoder(state, z, known)
            state = DrawState(canvas, state.prior, posterior_state, decoder_state, z)
        return torch.stack(latents, dim=1), total
