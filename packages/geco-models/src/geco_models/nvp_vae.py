r"""VAE+NVP: a VAE with a RealNVP flow as its prior (default) or inside its posterior.

Where the paper places the flow is not known to us; both places are [ours].

- `flow="prior"`: :math:`q(z|x)` is a diagonal Gaussian, and the flow's density is the prior,
  :math:`p(z) = N(u(z) | 0, I) |\det \partial u / \partial z|`.
- `flow="posterior"`: the prior is N(0, I), and :math:`q(z|x)` is the image of the encoder's
  Gaussian under the flow, which also reads a vector made by the encoder.

Either way the KL divergence has no closed form and is estimated by the one latent that is drawn:
:math:`\ln q(z|x) - \ln p(z)`, without bias; single values may be negative.
"""

from collections.abc import Sequence
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor

from geco_models.base import AbstractVAE, Condition, Options
from geco_models.flows import RealNVP
from geco_models.gaussian import (
    DiagonalGaussian,
    bound_log_variance,
    standard_log_prob,
    standard_normal,
)
from geco_models.likelihoods import Output
from geco_models.networks import (
    ContextEncoder,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
    suits_convolution,
)
from geco_models.output import ModelOutput
from geco_models.tolerance import HIDDEN, ToleranceModulation
from geco_models.validation import as_positive, as_shape

__all__ = ["NVPVAE", "FlowPlace", "FlowPosterior"]

FlowPlace = Literal["prior", "posterior"]


class FlowPosterior:
    """The image of a batch of diagonal Gaussians under a conditional flow.

    Args:
        base: The Gaussians, over (batch, latents).
        flow: The flow; `inverse` maps from base to latents.
        context: What the flow reads, (batch, context).
    """

    def __init__(self, base: DiagonalGaussian, flow: RealNVP, context: Tensor) -> None:
        self.base = base
        self.flow = flow
        self.context = context

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One latent per example, with gradients.

        Args:
            generator: The source of randomness; the global one if None.

        Returns:
            The latents, (batch, latents).
        """
        return self.sample_and_log_prob(generator)[0]

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density of each example at its own latent.

        Args:
            z: Latents, (batch, latents).

        Returns:
            The log-densities in nats, (batch,).
        """
        u, log_det = self.flow.forward(z, self.context)
        return self.base.log_prob(u) + log_det

    def sample_and_log_prob(
        self, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """One latent per example with its log-density, in one pass through the flow.

        Args:
            generator: The source of randomness; the global one if None.

        Returns:
            The latents, (batch, latents), and their log-densities in nats, (batch,).
        """
        u = self.base.sample(generator)
        z, log_det = self.flow.inverse(u, self.context)
        return z, self.base.log_prob(u) - log_det

    def __repr__(self) -> str:
        return f"FlowPosterior(shape={tuple(self.base.mean.shape)}, base={self.base!r})"


class NVPVAE(AbstractVAE):
    """A VAE with a RealNVP flow; the KL divergence is a Monte Carlo estimate from one sample.

    Images of at least 8 x 8 get convolutional networks, data of any other shape dense ones.

    Args:
        shape: The shape of one example.
        latents: The number of latent dimensions, at least 2.
        flow: Where the flow sits, "prior" or "posterior".
        couplings: The number of coupling layers.
        flow_hidden: The sizes of each coupling network's hidden layers.
        width: Channels at the coarsest stage of the convolutional networks.
        hidden: The sizes of the dense encoder's hidden layers; the decoder has them in reverse.
        context_shape: The shape of one context, (C, H, W) or (F,), which conditions encoder,
            decoder and flow prior; None for an unconditional model.
        output: What follows the decoder's last layer, "identity" or "sigmoid".
        **options: See `Options`; a tolerance also conditions a flow prior.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is too small, or `flow` or `output` is none of those named.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        latents: int = 32,
        flow: FlowPlace = "prior",
        couplings: int = 8,
        *,
        flow_hidden: Sequence[int] = (128, 128),
        width: int = 32,
        hidden: Sequence[int] = (400,),
        context_shape: Sequence[int] | None = None,
        output: Output = "identity",
        **options: Unpack[Options],
    ) -> None:
        shape, hidden = as_shape(shape), as_shape(hidden, "hidden")
        config = {
            "shape": shape,
            "latents": latents,
            "flow": flow,
            "couplings": couplings,
            "flow_hidden": flow_hidden,
            "width": width,
            "hidden": hidden,
            "context_shape": context_shape,
            "output": output,
        }
        super().__init__(shape, config, context_shape, **options)
        if flow not in get_args(FlowPlace):
            raise ValueError(f"`flow` must be 'prior' or 'posterior', got {flow!r}")
        self.flow_place = flow
        self.latents = as_positive(latents, "latents", minimum=2)
        width = as_positive(width, "width")
        self.as_output(output)
        self.context_encoder = (
            None if self.context_shape is None else ContextEncoder(self.context_shape, width)
        )
        extra = self.context_encoder.features if self.context_encoder else 0
        # in the posterior the flow reads as many features of the input as there are latents
        outputs = (2 if flow == "prior" else 3) * self.latents
        self.encoder: ConvEncoder | DenseEncoder
        self.decoder: ConvDecoder | DenseDecoder
        limits, made = self.tolerance, self.decoded_shape
        if suits_convolution(shape):
            centred = not self.units.identity
            self.encoder = ConvEncoder(shape, outputs, width, extra, limits, centred)
            self.decoder = ConvDecoder(made, self.latents, width, extra, limits)
        else:
            self.encoder = DenseEncoder(shape, outputs, hidden, extra, limits)
            self.decoder = DenseDecoder(made, self.latents, hidden[::-1], extra, limits)
        # a flow prior reads the tolerance as a vector, which starts at 1 whatever the tolerance is
        self.prior_modulation = (
            ToleranceModulation(HIDDEN, limits) if limits and flow == "prior" else None
        )
        read = extra + (HIDDEN if self.prior_modulation else 0)
        self.flow = RealNVP(
            self.latents,
            couplings,
            flow_hidden,
            context=read if flow == "prior" else self.latents,
        )
        if self.prior_modulation is not None and self.flow.context is not None:
            with torch.no_grad():  # the fresh model is the one without a tolerance
                self.flow.context.weight[:, extra:] = 0

    @property
    def latents_shape(self) -> tuple[int, ...]:
        """The latents of one example, (latents,)."""
        return (self.latents,)

    def embed(self, context: Tensor | None) -> Tensor | None:
        """One vector per context."""
        return None if self.context_encoder is None else self.context_encoder(context)

    def infer(
        self, u: Tensor, condition: Condition, generator: torch.Generator | None
    ) -> ModelOutput:
        """Encodes, draws one latent per example, and decodes; the KL is that latent's estimate."""
        posterior = self.encode(u, condition)
        if isinstance(posterior, FlowPosterior):
            z, log_q = posterior.sample_and_log_prob(generator)
        else:
            z = posterior.sample(generator)
            log_q = posterior.log_prob(z)
        kl = log_q - self.log_prior(z, condition)
        mean, distribution = self.observe(self.generate(self.like_weights(z), condition))
        return ModelOutput(mean, kl, z, distribution=distribution)

    def encode(self, u: Tensor, condition: Condition) -> DiagonalGaussian | FlowPosterior:
        """The posterior of each example: Gaussian under a flow prior, else a flow's."""
        raw = self.encoder(u, *condition)
        if self.flow_place == "prior":
            return DiagonalGaussian.from_raw(raw)
        mean, log_variance, features = raw.chunk(3, dim=1)
        base = DiagonalGaussian(mean, bound_log_variance(log_variance))
        return FlowPosterior(base, self.flow, features)

    def draw(self, n: int, condition: Condition, generator: torch.Generator | None) -> Tensor:
        """The decoder's numbers at draws from the prior, through the flow where that is it."""
        if self.flow_place == "prior":
            z = self.flow.sample(n, self._prior_context(condition, n), generator)
        else:
            z = standard_normal((n, self.latents), self.reference(), generator)
        return self.generate(self.like_weights(z), condition)

    def generate(self, z: Tensor, condition: Condition) -> Tensor:
        """The decoder's numbers at checked latents."""
        raw: Tensor = self.decoder(z, *condition)
        return raw

    def log_prior(self, z: Tensor, condition: Condition) -> Tensor:
        """The prior's log-density in nats, (batch,): the flow's, or that of N(0, I)."""
        if self.flow_place == "prior":
            return self.flow.log_prob(z, self._prior_context(condition, z.shape[0]))
        return standard_log_prob(z)

    def _prior_context(self, condition: Condition, batch: int) -> Tensor | None:
        """What a flow prior reads."""
        if self.prior_modulation is None or condition.kappa is None:
            return condition.context
        ones = self.reference().new_ones(batch, HIDDEN)
        read = self.prior_modulation.modulate(ones, condition.kappa)
        if condition.context is None:
            return read
        return torch.cat([condition.context, read.to(condition.context.dtype)], dim=1)
