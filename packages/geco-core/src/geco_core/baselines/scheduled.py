r"""Weights of the KL by a schedule or a controller, as papers compare with.

The decoder is Gaussian of fixed standard deviation, as in :class:`~geco_core.ELBO`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from geco_core.baselines.gaussian import GaussianBaseline
from geco_core.reduction import is_alone, sum_over_ranks
from geco_core.validation import check_number, finite, not_negative, positive, whole

__all__ = ["CyclicalELBO", "FreeBitsELBO", "SetPointELBO"]


class _FixedSigma(GaussianBaseline):
    """A decoder of fixed standard deviation."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = positive("sigma", sigma)

    def variance(self, error: Tensor) -> float:
        """The fixed variance."""
        return self.sigma**2


class CyclicalELBO(_FixedSigma):
    r"""A weight of the KL that rises from 0 to 1 again and again.

    With :math:`T` steps in :math:`M` cycles, at step :math:`t` the weight is
    :math:`\min(1, \tau / R)` with :math:`\tau = (t \bmod T / M) / (T / M)`, and 1 after the last
    cycle (Fu et al., "Cyclical annealing schedule: a simple approach to mitigating KL
    vanishing", NAACL 2019).

    Args:
        steps: :math:`T`, the calls of :meth:`step` of all cycles.
        cycles: :math:`M`.
        ramp: :math:`R`, the part of a cycle in which the weight rises.
        sigma: The standard deviation of the decoder, in the units of the data.

    Raises:
        TypeError: If a number is none, or not whole where it should be.
        ValueError: If a number is not positive, `ramp` is above 1, or there are fewer steps
            than cycles.
    """

    steps_done: Tensor

    def __init__(
        self, steps: int, cycles: int = 4, *, ramp: float = 0.5, sigma: float = 1.0
    ) -> None:
        super().__init__(sigma)
        self.cycles = whole("cycles", cycles)
        self.steps = whole("steps", steps, least=self.cycles)
        self.ramp = positive("ramp", ramp)
        if self.ramp > 1:
            raise ValueError(f"`ramp` must be in (0, 1], got {ramp}")
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))

    def weight(self) -> Tensor:
        """The weight at the present step."""
        length = self.steps / self.cycles
        phase = torch.remainder(self.steps_done, length) / length
        return torch.where(
            self.steps_done < self.steps,
            (phase / self.ramp).clamp(max=1.0),
            torch.ones_like(phase),
        )

    def step(self) -> None:
        """Moves one step along the schedule; does nothing in evaluation mode."""
        if self.training:
            self.steps_done = self.steps_done + 1

    def extra_repr(self) -> str:
        """The arguments."""
        return f"steps={self.steps}, cycles={self.cycles}, ramp={self.ramp}, sigma={self.sigma:g}"


class FreeBitsELBO(_FixedSigma):
    r"""A KL that costs nothing below a number of nats.

    The loss is :math:`NLL + \sum_k \max(\lambda, \text{mean}\,KL_k)` over groups :math:`k` of
    latents (Kingma et al., "Improved variational inference with inverse autoregressive flow",
    NeurIPS 2016, Eq. 15). The KL of the groups is passed by keyword,
    `objective(kl, x, reconstruction, kl_per_group=kl_of_groups)`, :math:`(B, K)`; without it all
    latents are one group.

    Args:
        nats: :math:`\lambda`, for each group.
        sigma: The standard deviation of the decoder, in the units of the data.

    Raises:
        TypeError: If a number is none.
        ValueError: If `nats` is negative, or `sigma` not positive.
    """

    def __init__(self, nats: float, *, sigma: float = 1.0) -> None:
        super().__init__(sigma)
        self.nats = not_negative("nats", nats)

    def cost(self, kl: Tensor, kl_mean: Tensor, batch: dict[str, Any]) -> Tensor:
        """What the KL costs above the free nats.

        Raises:
            ValueError: If `kl_per_group` is not of shape :math:`(B, K)`.
        """
        groups: Tensor | None = batch.get("kl_per_group")
        if groups is None:
            return kl_mean.clamp(min=self.nats)
        if groups.ndim != 2 or groups.shape[0] != kl.shape[0]:
            raise ValueError(
                f"`kl_per_group` must have shape ({kl.shape[0]}, groups), got "
                f"{tuple(groups.shape)}"
            )
        return groups.to(kl.dtype).mean(0).clamp(min=self.nats).sum()

    def extra_repr(self) -> str:
        """The arguments."""
        return f"nats={self.nats:g}, sigma={self.sigma:g}"


class SetPointELBO(_FixedSigma):
    r"""A weight of the KL that a PI controller moves until the KL is at a set point: ControlVAE.

    With the error :math:`e_t = C - KL_t` of the batch,

    .. math::

        I_t = \operatorname{clip}(I_{t-1} - K_i e_t, 0, \beta_{\max} - \beta_{\min}), \qquad
        \beta_t = \operatorname{clip}\Bigl(\beta_{\min} + \frac{K_p}{1 + e^{e_t}} + I_t,\;
           \beta_{\min}, \beta_{\max}\Bigr)

    (Shao et al., "ControlVAE: controllable variational autoencoder", ICML 2020, Eqs. 7 to 9; the
    clipped integral is this project's anti-windup). No error of the reconstruction can be asked
    for: see :class:`~geco_core.Rate` for the same aim as a constraint.

    Args:
        kl: :math:`C`, the set point in nats per example.
        proportional: :math:`K_p`.
        integral: :math:`K_i`, per step and nat.
        bounds: :math:`\beta_{\min}` and :math:`\beta_{\max}`.
        sigma: The standard deviation of the decoder, in the units of the data.

    Raises:
        TypeError: If a number is none.
        ValueError: If a number is out of its range.
    """

    state: Tensor

    def __init__(
        self,
        kl: float,
        *,
        proportional: float = 0.01,
        integral: float = 1e-4,
        bounds: tuple[float, float] = (0.0, 100.0),
        sigma: float = 1.0,
    ) -> None:
        super().__init__(sigma)
        self.kl = check_number("kl", kl, 0.0, math.inf)
        self.proportional = not_negative("proportional", proportional)
        self.integral = not_negative("integral", integral)
        low, high = (finite(f"bounds[{i}]", bound) for i, bound in enumerate(bounds))
        if not 0 <= low < high:
            raise ValueError(f"`bounds` must be 0 <= lowest < highest, got {bounds}")
        self.bounds = (low, high)
        # the integral, and the weight less the lowest one: both 0 at the start
        self.register_buffer("state", torch.zeros(2, dtype=torch.float32))
        self._seen: tuple[Tensor, Tensor | int] | None = None

    def weight(self) -> Tensor:
        """The present weight."""
        return self.bounds[0] + self.state[1]

    def observe(self, kl: Tensor, examples: int) -> None:
        """Adds the KL of a batch to those since the last step."""
        summed, count = kl * examples, examples
        if self._seen is None:
            self._seen = (summed, count)
        else:
            self._seen = (self._seen[0] + summed, self._seen[1] + count)

    def step(self) -> None:
        """One step of the controller; a KL that is not finite is skipped.

        Does nothing in evaluation mode.

        Raises:
            RuntimeError: If there has been no loss in training mode since the last step.
        """
        if not self.training:
            return
        if self._seen is None:
            raise RuntimeError("step() needs a loss computed in training mode since the last one")
        summed, count = self._seen
        self._seen = None
        if not is_alone():
            both = torch.stack([summed, torch.full_like(summed, float(count))])
            summed, count = sum_over_ranks(both).unbind()
        error = self.kl - (summed / count).to(self.state.dtype)
        span = self.bounds[1] - self.bounds[0]
        integral = (self.state[0] - self.integral * error).clamp(0.0, span)
        weight = (self.proportional * torch.sigmoid(-error) + integral).clamp(0.0, span)
        moved = torch.stack([integral, weight])
        self.state = torch.where(error.isfinite(), moved, self.state)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"kl={self.kl:g}, bounds={self.bounds}, sigma={self.sigma:g}"
