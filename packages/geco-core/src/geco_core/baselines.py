r"""The two objectives that GECO is compared with: a fixed beta and a hand-annealed one.

Only the temperature :math:`T = \beta \sigma^2` decides where they end (D1); it is the `beta`
that their info reports, the weight of the KL for a decoder of unit variance.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from geco_core.info import Info
from geco_core.violation import at_least_float32

__all__ = ["ELBO", "AnnealedELBO"]


class ELBO(nn.Module):
    r"""The (beta-)ELBO with a Gaussian decoder of fixed standard deviation.

    The loss is :math:`\beta\,KL + \frac{\|x - g\|^2}{2 \sigma^2}
    + \frac d2 \ln(2 \pi \sigma^2)`, averaged over the batch: the negative of Eq. (1) at
    :math:`\beta = 1`.

    Args:
        beta: The weight of the KL.
        sigma: The standard deviation :math:`\sigma` of the decoder, in the units of the data.

    Raises:
        ValueError: If an argument is not positive and finite.
    """

    def __init__(self, beta: float = 1.0, sigma: float = 1.0) -> None:
        super().__init__()
        for name, value in (("beta", beta), ("sigma", sigma)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be positive and finite, got {value}")
        self.beta = float(beta)
        self.sigma = float(sigma)
        self.constraints = nn.ModuleDict()
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, kl: Tensor, x: Tensor, reconstruction: Tensor, **batch: Any) -> Tensor:
        """The loss of a batch; `batch` is ignored."""
        return self._loss(kl, x, reconstruction, self.sigma)

    def _loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor, sigma: Any) -> Tensor:
        if x.shape != reconstruction.shape:
            raise ValueError(
                f"`x` and `reconstruction` must have the same shape, got {tuple(x.shape)} and "
                f"{tuple(reconstruction.shape)}"
            )
        error = (at_least_float32(x) - at_least_float32(reconstruction)).square()
        elements = error[0].numel()
        constant = 0.5 * math.log(2 * math.pi)
        log_sigma = sigma.log() if isinstance(sigma, Tensor) else math.log(sigma)
        nll = elements * (error.mean() / (2 * sigma**2) + log_sigma + constant)
        kl_mean = at_least_float32(kl).mean()
        loss = self.beta * kl_mean + nll
        self._last = (loss.detach(), kl_mean.detach())
        return loss

    def step(self) -> None:
        """Does nothing: there is no multiplier."""

    @property
    def info(self) -> Info:
        """The state after the last call; the fields that concern constraints are None."""
        loss, kl = self._last or (torch.tensor(torch.nan), torch.tensor(torch.nan))
        return Info(
            loss=loss,
            kl=kl,
            constraint=None,
            moving_average=None,
            multiplier=None,
            relative_multiplier=None,
            beta=loss.new_tensor(self.beta * self._sigma_now() ** 2),
            feasible=None,
            saturated=None,
            skipped=None,
        )

    def _sigma_now(self) -> float:
        return self.sigma


class AnnealedELBO(ELBO):
    r"""The ELBO with a decoder whose standard deviation is annealed by hand (GQN's scheme).

    :math:`\sigma` goes from `sigma_start` to `sigma_end`, linearly over `steps` steps.
    """

    step_count: Tensor

    def __init__(
        self, sigma_start: float = 2.0, sigma_end: float = 0.7, steps: int = 200_000
    ) -> None:
        super().__init__(beta=1.0, sigma=sigma_end)
        self.sigma_start, self.sigma_end, self.steps = sigma_start, sigma_end, steps
        self.register_buffer("step_count", torch.zeros((), dtype=torch.long))

    def current_sigma(self) -> Tensor:
        """The standard deviation at the present step."""
        fraction = (self.step_count / self.steps).clamp(max=1.0)
        return self.sigma_start + (self.sigma_end - self.sigma_start) * fraction

    def forward(self, kl: Tensor, x: Tensor, reconstruction: Tensor, **batch: Any) -> Tensor:
        """The loss of a batch at the present standard deviation."""
        return self._loss(kl, x, reconstruction, self.current_sigma())

    def step(self) -> None:
        """Moves one step along the schedule, in training mode."""
        if self.training:
            self.step_count += 1

    @property
    def info(self) -> Info:
        """The state after the last call."""
        info = super().info
        return Info(**{**{f: info[f] for f in info.__slots__}, "beta": self.current_sigma() ** 2})
