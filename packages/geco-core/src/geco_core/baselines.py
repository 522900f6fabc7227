r"""The two objectives that GECO is compared with: a fixed beta and a hand-annealed one.

Both are used in a loop exactly like :class:`~geco_core.GECO`. Only the temperature
:math:`T = \beta \sigma^2` decides where they end (D1); it is the `beta` that their info reports,
the weight of the KL for a decoder of unit variance.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from geco_core.info import Info
from geco_core.precision import accumulation_dtype, at_least_float32
from geco_core.validation import check_images, check_kl, positive

__all__ = ["ELBO", "AnnealedELBO"]


class _GaussianELBO(nn.Module):
    """What the two have in common: the loss at a given standard deviation, and the info."""

    #: The weight of the KL.
    beta: float

    def __init__(self) -> None:
        super().__init__()
        self.constraints = nn.ModuleDict()
        self._last: tuple[Tensor, Tensor] | None = None

    def sigma_now(self) -> Tensor:
        """The present standard deviation of the decoder, a scalar."""
        raise NotImplementedError

    def forward(self, kl: Tensor, x: Tensor, reconstruction: Tensor, **batch: Any) -> Tensor:
        r"""The loss of a batch.

        Args:
            kl: The KL of every example in nats, :math:`(B,)`.
            x: The data, :math:`(B, *)`.
            reconstruction: The decoder's output, :math:`(B, *)`.
            batch: Ignored.

        Returns:
            A scalar to be minimised.

        Raises:
            TypeError: If an argument is not a floating-point tensor.
            ValueError: If a shape does not fit.
            RuntimeError: In training mode, if the loss has no gradient.
        """
        check_kl(kl, x)
        check_images(x, reconstruction)
        dtype = accumulation_dtype(x, reconstruction)
        error = (x.to(dtype) - reconstruction.to(dtype)).square().mean()
        sigma = self.sigma_now().to(dtype)
        elements = math.prod(x.shape[1:])
        nll = elements * (error / (2 * sigma**2) + sigma.log() + 0.5 * math.log(2 * math.pi))
        kl_mean = at_least_float32(kl).mean()
        loss = self.beta * kl_mean + nll
        if self.training and not loss.requires_grad:
            raise RuntimeError(
                "in training mode the loss must depend on parameters, but it has no gradient: "
                "call objective.eval() to evaluate"
            )
        self._last = (loss.detach(), kl_mean.detach())
        return loss

    def step(self) -> None:
        """Called once per optimizer step."""

    @property
    def info(self) -> Info:
        """The state after the last call; the fields that concern constraints are None."""
        sigma = self.sigma_now()
        nan = sigma.new_full((), torch.nan)
        loss, kl = self._last or (nan, nan)
        return Info(loss=loss.clone(), kl=kl.clone(), beta=self.beta * sigma**2)


class ELBO(_GaussianELBO):
    r"""The (beta-)ELBO with a Gaussian decoder of fixed standard deviation.

    The loss is :math:`\beta\,KL + \frac{\|x - g\|^2}{2 \sigma^2}
    + \frac d2 \ln(2 \pi \sigma^2)`, averaged over the batch, with :math:`d` the elements of an
    example: at :math:`\beta = 1` the negative of Eq. (1).

    Args:
        beta: The weight of the KL.
        sigma: The standard deviation :math:`\sigma` of the decoder, in the units of the data.

    Raises:
        ValueError: If an argument is not positive and finite.
    """

    sigma: Tensor

    def __init__(self, beta: float = 1.0, sigma: float = 1.0) -> None:
        super().__init__()
        self.beta = positive("beta", beta)
        self.register_buffer("sigma", torch.tensor(positive("sigma", sigma)), persistent=False)

    def sigma_now(self) -> Tensor:
        """The standard deviation, a scalar."""
        return self.sigma

    def extra_repr(self) -> str:
        """The arguments."""
        return f"beta={self.beta:g}, sigma={self.sigma:g}"


class AnnealedELBO(_GaussianELBO):
    r"""The ELBO with a standard deviation that is annealed by hand (the scheme of GQN).

    :math:`\sigma` goes from `sigma_start` to `sigma_end`, linearly over `steps` calls of
    :meth:`step`, and stays there; the weight of the KL is 1.

    Args:
        sigma_start: The standard deviation at step 0, in the units of the data.
        sigma_end: The one from step `steps` on.
        steps: The length of the schedule.

    Raises:
        TypeError: If `steps` is not a whole number.
        ValueError: If an argument is not positive and finite.
    """

    steps_done: Tensor
    beta = 1.0

    def __init__(
        self, sigma_start: float = 2.0, sigma_end: float = 0.7, steps: int = 200_000
    ) -> None:
        super().__init__()
        self.sigma_start = positive("sigma_start", sigma_start)
        self.sigma_end = positive("sigma_end", sigma_end)
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise TypeError(f"`steps` must be a whole number, got {type(steps).__name__}")
        self.steps = int(positive("steps", steps))
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def sigma_now(self) -> Tensor:
        """The standard deviation at the present step, a scalar."""
        done = (self.steps_done / self.steps).clamp(max=1.0)
        return self.sigma_start + (self.sigma_end - self.sigma_start) * done

    def step(self) -> None:
        """Moves one step along the schedule; does nothing in evaluation mode."""
        if self.training:
            # not in place: compiled together with the loss, backward would read the new value
            self.steps_done = self.steps_done + 1

    def extra_repr(self) -> str:
        """The arguments."""
        return f"sigma_start={self.sigma_start:g}, sigma_end={self.sigma_end:g}, {self.steps=}"
