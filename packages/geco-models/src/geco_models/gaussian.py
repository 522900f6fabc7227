r"""Diagonal Gaussians over latents: bounded, exact, and independent of the compute precision.

Every posterior of this package is a diagonal Gaussian :math:`N(m, \operatorname{diag} e^{l})` or a
flow over one. The network's raw number :math:`r` becomes the log-variance
:math:`l = B \tanh(r / B)` with :math:`B` = `LOG_VARIANCE_BOUND`: close to the identity where
posteriors live, smooth everywhere, and :math:`e^{l}` can neither overflow nor vanish.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "LOG_VARIANCE_BOUND",
    "DiagonalGaussian",
    "bound_log_variance",
    "standard_log_prob",
    "standard_normal",
]

LOG_VARIANCE_BOUND = 20.0
"""Log-variances lie in (-20, 20): standard deviations between 4.5e-5 and 2.2e4."""

_LOG_2_PI = math.log(2 * math.pi)


def bound_log_variance(raw: Tensor, bound: float = LOG_VARIANCE_BOUND) -> Tensor:
    r"""Squashes a raw network output into :math:`(-B, B)` by :math:`B \tanh(r / B)`.

    Args:
        raw: The raw log-variance :math:`r`, any shape.
        bound: The bound :math:`B`.

    Returns:
        The log-variance, of the same shape; within 0.6% of `raw` for :math:`|r| < B / 8`.
    """
    return bound * torch.tanh(raw / bound)


def standard_normal(
    shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draws from N(0, 1).

    Args:
        shape: The shape of the result.
        like: A tensor whose device and type the result takes, but float32 instead of half.
        generator: The source of randomness; the global one if None.

    Returns:
        Independent draws.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    if generator is None:
        # a call that names a generator, even None, cannot be compiled with a symbolic batch size
        return torch.randn(shape, dtype=dtype, device=like.device)
    return torch.randn(shape, generator=generator, dtype=dtype, device=like.device)


def standard_log_prob(z: Tensor) -> Tensor:
    r"""The log-density :math:`\ln N(z | 0, I)` of each row.

    Args:
        z: Points, (batch, ...).

    Returns:
        The log-densities in nats, (batch,).
    """
    return -0.5 * _row_sums(z.square() + _LOG_2_PI)


def _row_sums(x: Tensor) -> Tensor:
    # not flatten(1).sum(1), which copies planes whose channels lie last
    return x.sum(tuple(range(1, x.dim())))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class DiagonalGaussian:
    r"""The batch of densities :math:`N(m, \operatorname{diag} e^{l})`, one per row.

    Statistics given in half precision (as they come out of autocast) are kept in float32, so
    that sampling and KL do not lose the digits that distinguish close latents.

    Args:
        mean: The means :math:`m`, (batch, ...).
        log_variance: The log-variances :math:`l`, of the same shape, used as they are: bound
            them first where a network made them (`from_raw` does both).

    Raises:
        ValueError: If the shapes differ.
    """

    def __init__(self, mean: Tensor, log_variance: Tensor) -> None:
        if mean.shape != log_variance.shape:
            msg = (
                f"`mean` {tuple(mean.shape)} and `log_variance` {tuple(log_variance.shape)} "
                "must have the same shape"
            )
            raise ValueError(msg)
        self.mean = _at_least_float32(mean)
        self.log_variance = _at_least_float32(log_variance)

    @classmethod
    def from_raw(cls, raw: Tensor) -> "DiagonalGaussian":
        """Splits a network's output along dimension 1 into means and bounded log-variances.

        Args:
            raw: The network's output, (batch, 2 * channels, ...).

        Returns:
            Gaussians over (batch, channels, ...).
        """
        mean, log_variance = _at_least_float32(raw).chunk(2, dim=1)
        return cls(mean, bound_log_variance(log_variance))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        r"""One draw per row, :math:`z = m + e^{l/2} \epsilon`; gradients reach mean and variance.

        Args:
            generator: The source of randomness; the global one if None.

        Returns:
            The draws, of the shape of the mean.
        """
        return self.draw(standard_normal(self.mean.shape, self.mean, generator))

    def draw(self, noise: Tensor) -> Tensor:
        r"""The point :math:`m + e^{l/2} \epsilon` of given standard normal noise.

        Args:
            noise: The noise :math:`\epsilon`, of the shape of the mean; its batch size may be
                larger where that of the mean is 1.

        Returns:
            The points, of the shape of the noise.
        """
        return torch.addcmul(self.mean, torch.exp(0.5 * self.log_variance), noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density of each row at its own point.

        Args:
            z: Points, of the shape of the mean (or one that broadcasts against it).

        Returns:
            The log-densities in nats, (batch,).
        """
        scaled = (z - self.mean).square() * torch.exp(-self.log_variance)
        return -0.5 * _row_sums(scaled + self.log_variance + _LOG_2_PI)

    def kl_per_dimension(self, prior: "DiagonalGaussian | None" = None) -> Tensor:
        r"""The exact KL divergence from a prior, dimension by dimension.

        With :math:`\delta = l - l_p` it is
        :math:`\frac12 \left((m - m_p)^2 e^{-l_p} + e^{\delta} - 1 - \delta\right)`.

        Args:
            prior: Gaussians of the same shape; N(0, I) if None.

        Returns:
            The divergences in nats, of the shape of the mean; zero exactly where the two coincide.
        """
        if prior is None:
            distance, delta = self.mean.square(), self.log_variance
        else:
            delta = self.log_variance - prior.log_variance
            distance = (self.mean - prior.mean).square() * torch.exp(-prior.log_variance)
        # expm1 keeps the digits where the variances nearly agree
        return 0.5 * (distance + torch.expm1(delta) - delta)

    def kl(self, prior: "DiagonalGaussian | None" = None) -> Tensor:
        """The exact KL divergence of each row from a prior: the sum over its dimensions.

        Args:
            prior: Gaussians of the same shape; N(0, I) if None.

        Returns:
            The divergences in nats, (batch,).
        """
        return _row_sums(self.kl_per_dimension(prior))

    def __repr__(self) -> str:
        return f"DiagonalGaussian(shape={tuple(self.mean.shape)}, dtype={self.mean.dtype})"
