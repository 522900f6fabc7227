"""What every model of this package returns: one pass over a batch, and its posterior."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["ACTIVE_KL", "ACTIVE_VARIANCE", "ModelOutput", "Posterior", "active_units"]

ACTIVE_KL = 0.01
"""Above this mean KL, in nats, a latent dimension counts as used (`ModelOutput.active_units`)."""

ACTIVE_VARIANCE = 0.01
"""Above this variance of its posterior mean a dimension counts as used (Burda et al., 2015)."""


class ModelOutput(NamedTuple):
    """One pass of a model over a batch: what a training objective needs, by name."""

    reconstruction: Tensor
    """The decoder's mean :math:`g(z)`, in the units of the data, with the shape of the input."""

    kl: Tensor
    """The KL divergence from posterior to prior in nats, one number per example, (batch,)."""

    latents: Tensor
    """The latents :math:`z` that the reconstruction was decoded from, (batch, ...)."""

    kl_steps: Tensor | None = None
    """The KL of each step or stochastic layer in nats, (batch, steps), where a model has several;
    it sums to `kl`. None elsewhere."""

    kl_per_dimension: Tensor | None = None
    """The KL of each latent dimension in nats, of the shape of `latents`; it sums to `kl`. None
    where the KL does not split over dimensions (a flow in prior or posterior)."""

    distribution: Distribution | None = None
    """The decoder's density of one example, :math:`p(x | z)`, whose `log_prob(x)` is (batch,) in
    nats; None for a model without a `likelihood`, whose decoder has a mean alone."""

    def active_units(self, threshold: float = ACTIVE_KL) -> Tensor:
        """Which latent dimensions are in use: those whose mean KL over the batch is not nearly 0.

        Args:
            threshold: The mean KL in nats above which a dimension counts as used.

        Returns:
            One truth value for each dimension, of the shape of one example's latents; their sum
            is the number of active units.

        Raises:
            ValueError: If the KL of this model does not split over dimensions.
        """
        if self.kl_per_dimension is None:
            raise ValueError(
                "`kl_per_dimension` is None: the KL of this model does not split over latent "
                "dimensions; use `active_units(model.posterior(x).mean)` on many examples"
            )
        return self.kl_per_dimension.mean(0) > threshold


class Posterior(Protocol):
    """The approximate posterior q(z | x) of a batch, one density per example."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One latent per example, with gradients."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density in nats of each example at its own latent, (batch,)."""
        ...


def active_units(means: Tensor, threshold: float = ACTIVE_VARIANCE) -> Tensor:
    r"""Which latent dimensions are in use, by the variance of their posterior means over data.

    Dimension :math:`u` is active if :math:`\operatorname{Var}_x E_{q(u|x)}[u]` is above the
    threshold.

    References:
        Importance Weighted Autoencoders (Burda et al., 2015), section 5.1.1,
        https://arxiv.org/abs/1509.00519

    Args:
        means: Posterior means of many examples, (n, ...), as in `model.posterior(x).mean`.
        threshold: The variance above which a dimension counts as used.

    Returns:
        One truth value for each dimension, (...); their sum is the number of active units.

    Raises:
        ValueError: If there are fewer than two examples.
    """
    if means.dim() < 2 or means.shape[0] < 2:
        msg = f"`means` must be (n, ...) with at least 2 examples, got {tuple(means.shape)}"
        raise ValueError(msg)
    return means.var(0) > threshold
