r"""The marginal KL: how far the aggregate posterior lies from the prior.

With :math:`\bar q(z) = \frac1n \sum_j q(z|x_j)` over n data points it is
:math:`KL(\bar q \| \pi) = E_{\bar q}[\ln \bar q(z) - \ln \pi(z)]`, estimated from samples
:math:`z_i \sim q(z|x_i)`, one for each of the n points, the density of the aggregate taken over
*all* n posteriors by log-sum-exp. The same samples give the mutual information
:math:`I = E[\ln q(z_i|x_i) - \ln \bar q(z_i)] \le \ln n`; the two add up to the mean KL per datum
(D6), which is a different quantity, though it is often printed under this name.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_experiments.datasets import Batch

__all__ = ["MarginalKL", "aggregate_log_prob", "gaussian_log_prob_matrix", "marginal_kl"]

BLOCK = 2**22
"""Largest number of entries of a block of the n x n matrix of log-densities."""


class MarginalKL(NamedTuple):
    """Monte Carlo estimates in nats with their standard errors, and the number of posteriors."""

    marginal_kl: float
    marginal_kl_error: float
    mutual_information: float
    mutual_information_error: float
    posteriors: int


def gaussian_log_prob_matrix(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""The log-density of every point under every diagonal Gaussian.

    Args:
        z: (m, d) points.
        mean: (n, d) means.
        log_variance: (n, d) log-variances.

    Returns:
        (m, n), computed in float64 as one product of matrices.
    """
    z, mean, log_variance = z.double(), mean.double(), log_variance.double()
    # centred, so that the expanded square does not lose digits far from the origin
    centre = mean.mean(0)
    z, mean = z - centre, mean - centre
    precision = torch.exp(-log_variance)
    quadratic = z.square() @ precision.T - 2 * z @ (mean * precision).T
    constant = (mean.square() * precision + log_variance + math.log(2 * math.pi)).sum(1)
    return -0.5 * (quadratic + constant)


def aggregate_log_prob(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The log-density (m,) of points under the equal mixture of all n diagonal Gaussians."""
    rows = max(1, BLOCK // len(mean))
    blocks = [
        gaussian_log_prob_matrix(part, mean, log_variance).logsumexp(1)
        for part in torch.split(z, rows)
    ]
    return torch.cat(blocks) - math.log(len(mean))


@torch.no_grad()
def marginal_kl(
    model: Any,
    batch: Batch,
    inputs: Tensor,
    generator: torch.Generator,
    kappa: float | None = None,
) -> MarginalKL | None:
    """Estimate the marginal KL over the data points of a batch.

    Args:
        model: A model with `posterior` and `prior_log_prob`.
        batch: The n data points.
        inputs: Their images as the model takes them.
        generator: The source of the samples.
        kappa: The tolerance, for a model that takes it.

    Returns:
        The estimates; None for a conditional model whose prior depends on the context, where an
        aggregate over different contexts has no one prior to be compared with.
    """
    context = batch.context
    count = len(inputs)
    at = {} if kappa is None else {"kappa": kappa}
    posterior = model.posterior(inputs, context, **at)
    z = posterior.sample(generator)
    own = posterior.log_prob(z).double()
    prior = model.prior_log_prob(z, context, **at).double()
    if context is not None:
        rolled = model.prior_log_prob(z, context.roll(1, 0), **at).double()
        if not torch.equal(rolled, prior):
            return None
    if hasattr(posterior, "mean") and hasattr(posterior, "log_variance"):
        aggregate = aggregate_log_prob(
            z.flatten(1), posterior.mean.flatten(1), posterior.log_variance.flatten(1)
        )
        # one and the same formula on both sides: a single posterior then has I = 0 exactly
    else:
        rows = [
            posterior.log_prob(point.expand_as(z)).double().logsumexp(0) for point in z[:, None]
        ]
        aggregate = torch.stack(rows) - math.log(count)
    marginal, information = aggregate - prior, own - aggregate
    return MarginalKL(
        marginal.mean().item(),
        _standard_error(marginal),
        information.mean().item(),
        _standard_error(information),
        count,
    )


def _standard_error(values: Tensor) -> float:
    return (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan
