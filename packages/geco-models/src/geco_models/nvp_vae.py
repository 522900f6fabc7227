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
from typing import Literal, get_args

import torch
from torch import Tensor

from geco_models.base import AbstractVAE
from geco_models.flows import RealNVP
from geco_models.gaussian import (
    DiagonalGaussian,
    bound_log_variance,
    standard_log_prob,
    standard_normal,
)
from geco_models.networks import (
    ContextEncoder,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
    suits_convolution,
)
from geco_models.output import ModelOutput
from geco_models.vae import Output, activate, as_output
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
        super().__init__(shape, config, context_shape)
        if flow not in get_args(FlowPlace):
            raise ValueError(f"`flow` must be 'prior' or 'posterior', got {flow!r}")
        self.flow_place = flow
        self.latents = as_positive(latents, "latents", minimum=2)
        width = as_positive(width, "width")
        self.output = as_output(output)
        self.context_encoder = (
            None if self.context_shape is None else ContextEncoder(self.context_shape, width)
        )
        extra = self.context_encoder.features if self.context_encoder else 0
        # in the posterior the flow reads as many features of the input as there are latents
        outputs = (2 if flow == "prior" else 3) * self.latents
        self.encoder: ConvEncoder | DenseEncoder
        self.decoder: ConvDecoder | DenseDecoder
        if suits_convolution(shape):
            self.encoder = ConvEncoder(shape, outputs, width, extra)
            self.decoder = ConvDecoder(shape, self.latents, width, extra)
        else:
            self.encoder = DenseEncoder(shape, outputs, hidden, extra)
            self.decoder = DenseDecoder(shape, self.latents, hidden[::-1], extra)
        self.flow = RealNVP(
            self.latents,
            couplings,
            flow_hidden,
            context=extra if flow == "prior" else self.latents,
        )

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> ModelOutput:
        """Encodes, draws one latent per example, and decodes; the KL is that latent's estimate."""
        posterior, embedding = self._posterior(x, context)
        if isinstance(posterior, FlowPosterior):
            z, log_q = posterior.sample_and_log_prob(generator)
        else:
            z = posterior.sample(generator)
            log_q = posterior.log_prob(z)
        kl = log_q - self._prior_log_prob(z, embedding)
        return ModelOutput(self._generate(z, embedding), kl, z)

    @torch.no_grad()
    def sample(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Decodes draws from the prior, through the flow where that is the prior; no gradients."""
        n = as_positive(n, "n")
        embedding = self._embed(context, n)
        if self.flow_place == "prior":
            z = self.flow.sample(n, embedding, generator)
        else:
            z = standard_normal((n, self.latents), self.reference(), generator)
        return self._generate(z, embedding)

    def posterior(
        self, x: Tensor, context: Tensor | None = None
    ) -> DiagonalGaussian | FlowPosterior:
        """The posterior of each example: Gaussian under a flow prior, else a flow's."""
        return self._posterior(x, context)[0]

    def prior_log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The prior's log-density in nats, (batch,): the flow's, or that of N(0, I)."""
        self.check_latents(z, (self.latents,))
        return self._prior_log_prob(z, self._embed(context, z.shape[0]))

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The decoder's mean :math:`g(z)`.

        Args:
            z: Latents, (batch, latents).
            context: The context, for a conditional model only.

        Returns:
            The means, `(batch, *shape)`.

        Raises:
            TypeError: If `z` is not floating point.
            ValueError: If a shape is wrong, or the context is missing or superfluous.
        """
        self.check_latents(z, (self.latents,))
        return self._generate(z, self._embed(context, z.shape[0]))

    def _embed(self, context: Tensor | None, batch: int) -> Tensor | None:
        context = self.check_context(context, batch)
        if self.context_encoder is None or context is None:
            return None
        embedding: Tensor = self.context_encoder(context)
        return embedding

    def _posterior(
        self, x: Tensor, context: Tensor | None
    ) -> tuple[DiagonalGaussian | FlowPosterior, Tensor | None]:
        self.check_input(x)
        embedding = self._embed(context, x.shape[0])
        raw = self.encoder(x, embedding)
        if self.flow_place == "prior":
            return DiagonalGaussian.from_raw(raw), embedding
        mean, log_variance, features = raw.chunk(3, dim=1)
        base = DiagonalGaussian(mean, bound_log_variance(log_variance))
        return FlowPosterior(base, self.flow, features), embedding

    def _prior_log_prob(self, z: Tensor, embedding: Tensor | None) -> Tensor:
        if self.flow_place == "prior":
            return self.flow.log_prob(z, embedding)
        return standard_log_prob(z)

    def _generate(self, z: Tensor, embedding: Tensor | None) -> Tensor:
        return activate(self.decoder(self.like_weights(z), embedding), self.output)
