"""What every model of this package returns."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["ModelOutput"]


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
