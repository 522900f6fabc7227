"""What every model of this package returns: one pass over a batch, and its posterior."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["ModelOutput", "Posterior"]


class ModelOutput(NamedTuple):
    """One pass of a model over a batch: what a training objective needs, by name."""

    reconstruction: Tensor
    """The decoder's mean :math:`g(z)`, in the units of the data, with the shape of the input."""

    kl: Tensor
    """The KL divergence from posterior to prior in nats, one number per example, (batch,)."""

    latents: Tensor
    """The latents :math:`z` that the reconstruction was decoded from, (batch, ...)."""

    kl_steps: Tensor | None = None
    """For recurrent models the KL of each step in nats, (batch, steps); it sums to `kl`."""


class Posterior(Protocol):
    """The approximate posterior q(z | x) of a batch, one density per example."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One latent per example, with gradients."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density in nats of each example at its own latent, (batch,)."""
        ...
