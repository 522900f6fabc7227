r"""The Gaussians of ConvDraw's training pass, with gradients written by hand.

The posterior's head gives :math:`m / B` and :math:`r / B`, over the bound :math:`B` of
log-variances (`geco_models.gaussian`), so that the squashed :math:`t = \tanh(r / B)` is computed
once for the draw and for the KL. With the log-variance :math:`l = B t`

.. math::
    z &= m + e^{B t / 2} \epsilon \\
    KL &= \tfrac12 \left((m - m_p)^2 e^{-B t_p} + e^{\delta} - 1 - \delta\right), \qquad
    \delta = B (t - t_p)
"""

import math
from typing import Any

import torch
from torch import Tensor

from geco_models.conv_draw.conv_lstm import traced
from geco_models.gaussian import LOG_VARIANCE_BOUND

__all__ = ["draw", "kl_of_path"]

_BOUND = LOG_VARIANCE_BOUND
_DEVIATION = math.exp(_BOUND / 2)  # of t = 1
_PRECISION = math.exp(-_BOUND)


def draw(raw: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior's statistics and a latent.

    Args:
        raw: Means and raw log-variances over the bound, (batch, 2 channels, h, w), float32 or
            wider. It may be written into.
        noise: Standard normal noise, (batch, channels, h, w).

    Returns:
        Means and squashed log-variances over the bound, of the shape of `raw`; the latent.
    """
    if traced():
        mean, ratio = raw.chunk(2, dim=1)
        squashed = torch.tanh(ratio)
        z = _BOUND * mean + torch.exp(0.5 * _BOUND * squashed) * noise
        return torch.cat((mean, squashed), dim=1), z
    found: tuple[Tensor, Tensor] = _Draw.apply(raw, noise)  # type: ignore[no-untyped-call]
    return found


def kl_of_path(posterior: Tensor, prior: Tensor) -> Tensor:
    """The KL of each latent along a path.

    Args:
        posterior: What `draw` returned, of all steps, (n, 2 channels, h, w).
        prior: The prior's means and raw log-variances, of the same shape.

    Returns:
        The divergences in nats, (n, channels, h, w).
    """
    if traced():
        return _kl(posterior, prior)[0]
    found: Tensor = _PathKL.apply(posterior, prior)  # type: ignore[no-untyped-call]
    return found


def _kl(posterior: Tensor, prior: Tensor) -> tuple[Tensor, ...]:
    r"""The KL; with :math:`d = (m_p - m) / B`: :math:`d e^{-l_p}`, :math:`e^\delta - 1`, the
    latter plus :math:`B^2 d^2 e^{-l_p}`; :math:`t_p`.
    """
    mean, squashed = posterior.chunk(2, dim=1)
    # the same rounding as the posterior's: the KL of equal Gaussians is 0 exactly
    prior_mean, ratio = (prior / _BOUND).chunk(2, dim=1)
    prior_squashed = torch.tanh(ratio)
    difference = prior_mean - mean
    pull = difference * torch.pow(_PRECISION, prior_squashed)
    delta = _BOUND * (squashed - prior_squashed)
    growth = torch.expm1(delta)  # keeps the digits where the variances nearly agree
    whole = torch.addcmul(growth, pull, difference, value=_BOUND**2)
    return 0.5 * (whole - delta), pull, growth, whole, prior_squashed


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, raw: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        ctx.mark_dirty(raw)
        mean, squashed = raw.chunk(2, dim=1)
        squashed.tanh_()
        spread = noise * torch.pow(_DEVIATION, squashed)
        ctx.save_for_backward(raw, spread)
        ctx.set_materialize_grads(False)
        return raw, torch.add(spread, mean, alpha=_BOUND)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad_statistics: Tensor | None, grad_z: Tensor | None
    ) -> tuple[Tensor | None, None]:
        statistics, spread = ctx.saved_tensors
        if grad_statistics is None and grad_z is None:
            return None, None
        if grad_statistics is None:
            grad_statistics = torch.zeros_like(statistics)
        if grad_z is None:
            grad_z = torch.zeros_like(spread)
        grad = torch.empty_like(statistics)
        of_mean, of_squashed = grad.chunk(2, dim=1)
        mean, squashed = grad_statistics.chunk(2, dim=1)
        torch.add(mean, grad_z, alpha=_BOUND, out=of_mean)
        torch.addcmul(squashed, grad_z, spread, value=0.5 * _BOUND, out=of_squashed)
        _through_tanh(of_squashed, statistics.chunk(2, dim=1)[1])
        return grad, None


class _PathKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, posterior: Tensor, prior: Tensor) -> Tensor:
        kl, *kept = _kl(posterior, prior)
        ctx.save_for_backward(*kept)
        ctx.layout = posterior.shape, posterior.stride()
        return kl

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        pull, growth, whole, prior_squashed = ctx.saved_tensors
        of_posterior, of_prior = (
            torch.empty_strided(*ctx.layout, dtype=pull.dtype, device=pull.device)
            for _ in range(2)
        )
        negative = -0.5 * grad
        mean, squashed = of_posterior.chunk(2, dim=1)
        torch.mul(grad, pull, out=mean).mul_(_BOUND)
        torch.mul(negative, growth, out=squashed)
        prior_mean, raw = of_prior.chunk(2, dim=1)
        prior_mean.copy_(mean)
        of_posterior.mul_(-_BOUND)
        torch.mul(negative, whole, out=raw)
        _through_tanh(raw, prior_squashed)
        return of_posterior, of_prior


def _through_tanh(grad: Tensor, squashed: Tensor) -> None:
    """Turns the gradient of a tanh into that of its argument, in place."""
    torch.ops.aten.tanh_backward(grad, squashed, grad_input=grad)
