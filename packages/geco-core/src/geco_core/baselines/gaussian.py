r"""A Gaussian decoder of a standard deviation that is fixed, annealed by hand, or the best one.

Used in a loop exactly like :class:`~geco_core.GECO`. With :math:`\beta` and :math:`\sigma` fixed,
only the temperature :math:`T = \beta \sigma^2` decides where a run ends (D1); it is the `beta`
that the info reports, the weight of the KL for a decoder of unit variance.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from geco_core.info import Info
from geco_core.precision import accumulation_dtype, at_least_float32
from geco_core.reporting import flat_metrics
from geco_core.validation import check_batch, check_images, check_kl, positive, whole

__all__ = ["ELBO", "AnnealedELBO", "GaussianBaseline", "OptimalSigmaELBO"]


class GaussianBaseline(nn.Module):
    """What these objectives have in common: the checks, the likelihood, the info."""

    def __init__(self) -> None:
        super().__init__()
        self.constraints = nn.ModuleDict()
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def variance(self, error: Tensor) -> Tensor | float:
        r"""The variance :math:`\sigma^2` of the decoder, given the mean squared error."""
        raise NotImplementedError

    def weight(self) -> Tensor | float:
        """The weight of the KL in the loss."""
        return 1.0

    def cost(self, kl: Tensor, kl_mean: Tensor, batch: dict[str, Any]) -> Tensor:
        """What the KL adds to the loss."""
        return self.weight() * kl_mean

    def forward(self, kl: Tensor, x: Tensor, reconstruction: Tensor, **batch: Any) -> Tensor:
        r"""The loss of a batch.

        Args:
            kl: The KL of every example in nats, :math:`(B,)`.
            x: The data, :math:`(B, *)`.
            reconstruction: The decoder's output, :math:`(B, *)`.
            batch: Ignored, unless a subclass says so.

        Returns:
            A scalar to be minimised.

        Raises:
            TypeError: If an argument is not a floating-point tensor.
            ValueError: If a shape does not fit.
            RuntimeError: In training mode, if the loss has no gradient.
        """
        check_kl(kl, x)
        check_batch(kl, x)
        check_images(x, reconstruction)
        dtype = accumulation_dtype(x, reconstruction)
        error = (x.to(dtype) - reconstruction.to(dtype)).square().mean()
        variance = self.variance(error)
        variance = torch.full_like(error, variance) if isinstance(variance, float) else variance
        variance = variance.to(dtype)
        elements = math.prod(x.shape[1:])
        nll = 0.5 * elements * (error / variance + (2 * math.pi * variance).log())
        kl_mean = at_least_float32(kl).mean()
        loss = self.cost(at_least_float32(kl), kl_mean, batch) + nll
        if self.training:
            if not loss.requires_grad:
                raise RuntimeError(
                    "in training mode the loss must depend on parameters, but it has no "
                    "gradient: call objective.eval() to evaluate"
                )
            self.observe(kl_mean.detach(), kl.shape[0])
        temperature = self.weight() * variance.detach()
        self._last = (loss.detach(), kl_mean.detach(), temperature)
        return loss

    def observe(self, kl: Tensor, examples: int) -> None:
        """Sees the mean KL of a batch in training mode."""

    def step(self) -> None:
        """Called once per optimizer step."""

    def now(self) -> Tensor | float:
        """The present temperature, as far as it is known without a batch."""
        return self.weight() * self.variance(torch.full((), torch.nan))

    @property
    def info(self) -> Info:
        """The state after the last call; the fields that concern constraints are None."""
        now = self.now()
        if self._last is None:
            beta = now if isinstance(now, Tensor) else torch.tensor(now)
            nan = torch.full_like(beta, torch.nan)
            return Info(loss=nan, kl=nan.clone(), beta=beta.clone())
        loss, kl, last = self._last
        beta = torch.full_like(last, now) if isinstance(now, float) else now.to(last)
        beta = torch.where(beta.isnan(), last, beta)  # of the last batch, where it takes one
        return Info(loss=loss.clone(), kl=kl.clone(), beta=beta.clone())

    def metrics(self) -> dict[str, float]:
        """`loss`, `kl` and `beta`, for any logger; reads the device."""
        return flat_metrics(self.info)

    def report(self) -> str:
        """One line: loss, KL and the weight of the KL."""
        return ", ".join(f"{name} {value:.4g}" for name, value in self.metrics().items())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        meta = [name for name, buffer in self.named_buffers() if buffer.is_meta]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in meta:
            buffer = self.get_buffer(name)
            if not buffer.is_meta:
                buffer.zero_()  # as after the constructor
        return self


class ELBO(GaussianBaseline):
    r"""The (beta-)ELBO with a Gaussian decoder of fixed standard deviation.

    The loss is :math:`\beta\,KL + \frac{\|x - g\|^2}{2 \sigma^2}
    + \frac d2 \ln(2 \pi \sigma^2)`, averaged over the batch, with :math:`d` the elements of an
    example: at :math:`\beta = 1` the negative of Eq. (1).

    Args:
        beta: The weight of the KL.
        sigma: The standard deviation :math:`\sigma` of the decoder, in the units of the data.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is not positive and finite.
    """

    def __init__(self, beta: float = 1.0, sigma: float = 1.0) -> None:
        super().__init__()
        self.beta = positive("beta", beta)
        self.sigma = positive("sigma", sigma)

    def variance(self, error: Tensor) -> float:
        """The fixed variance."""
        return self.sigma**2

    def weight(self) -> float:
        """The fixed weight."""
        return self.beta

    def extra_repr(self) -> str:
        """The arguments."""
        return f"beta={self.beta:g}, sigma={self.sigma:g}"


class AnnealedELBO(GaussianBaseline):
    r"""The ELBO with a standard deviation that is annealed by hand (the scheme of GQN).

    :math:`\sigma` goes from `sigma_start` to `sigma_end`, linearly over `steps` calls of
    :meth:`step`, and stays there; the weight of the KL is 1.

    Args:
        sigma_start: The standard deviation at step 0, in the units of the data.
        sigma_end: The one from step `steps` on.
        steps: The length of the schedule.

    Raises:
        TypeError: If `steps` is not a whole number, or another argument not a number.
        ValueError: If an argument is not positive and finite.
    """

    steps_done: Tensor

    def __init__(
        self, sigma_start: float = 2.0, sigma_end: float = 0.7, steps: int = 200_000
    ) -> None:
        super().__init__()
        self.sigma_start = positive("sigma_start", sigma_start)
        self.sigma_end = positive("sigma_end", sigma_end)
        self.steps = whole("steps", steps)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def sigma_now(self) -> Tensor:
        """The standard deviation at the present step, a scalar."""
        done = (self.steps_done / self.steps).clamp(max=1.0)
        return self.sigma_start + (self.sigma_end - self.sigma_start) * done

    def variance(self, error: Tensor) -> Tensor:
        """The variance at the present step."""
        return self.sigma_now().square()

    def step(self) -> None:
        """Moves one step along the schedule; does nothing in evaluation mode."""
        if self.training:
            # not in place: compiled together with the loss, backward would read the new value
            self.steps_done = self.steps_done + 1

    def extra_repr(self) -> str:
        """The arguments."""
        return f"sigma_start={self.sigma_start:g}, sigma_end={self.sigma_end:g}, {self.steps=}"


class OptimalSigmaELBO(GaussianBaseline):
    r"""The ELBO with the best standard deviation for each batch: the sigma-VAE.

    With :math:`\sigma^2` the mean squared error of the batch, which minimises the loss, the loss
    is :math:`KL + \frac d2 \ln(2 \pi e\,\text{MSE})`. Nothing is to be tuned and no error can
    be asked for (Rybkin, Daniilidis, Levine, "Simple and effective VAE training with calibrated
    decoders", ICML 2021).

    Args:
        floor: The smallest standard deviation, in the units of the data: without one the loss
            has no lower limit where data can be reconstructed exactly.

    Raises:
        TypeError: If `floor` is not a number.
        ValueError: If `floor` is not positive and finite.
    """

    def __init__(self, floor: float = 1e-3) -> None:
        super().__init__()
        self.floor = positive("floor", floor)

    def variance(self, error: Tensor) -> Tensor:
        """The error itself, with its gradient: the loss is then that of its logarithm."""
        return error.clamp(min=self.floor**2)

    def extra_repr(self) -> str:
        """The argument."""
        return f"floor={self.floor:g}"
