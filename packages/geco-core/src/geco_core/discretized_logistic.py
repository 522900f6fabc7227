r"""The discretised logistic distribution, the likelihood of images with 256 levels.

Kingma et al., "Improved variational inference with inverse autoregressive flow", NeurIPS 2016;
Salimans et al., "PixelCNN++", ICLR 2017 (one component).
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from geco_core.validation import finite, whole

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(Distribution):
    r"""A logistic distribution whose mass falls on evenly spaced levels.

    With levels a distance :math:`\Delta` apart and :math:`F` the logistic function,

    .. math:: P(x) = F\Bigl(\frac{x + \Delta/2 - \mu}{s}\Bigr)
       - F\Bigl(\frac{x - \Delta/2 - \mu}{s}\Bigr),

    where the lowest and the highest level also get what lies beyond them, so that the masses add
    up to 1. They are computed from logarithms and do not vanish far from :math:`\mu`.

    Args:
        loc: :math:`\mu`, in the units of the data.
        scale: :math:`s`, positive, likewise.
        low: The lowest level.
        high: The highest level.
        levels: How many levels there are.
        validate_args: As for every distribution of torch.

    Raises:
        TypeError: If `levels` is not a whole number, or a bound not a number.
        ValueError: If there are fewer than 2 levels, or `low` is not below `high`.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    has_rsample = False

    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        *,
        low: float = 0.0,
        high: float = 1.0,
        levels: int = 256,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = whole("levels", levels, least=2)
        self.low, self.high = finite("low", low), finite("high", high)
        if not self.low < self.high:
            raise ValueError(f"`low` must be below `high`, got {low} and {high}")
        self.step = (self.high - self.low) / (self.levels - 1)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """The interval of the levels; values in between count for the nearest."""
        return constraints.interval(self.low, self.high)  # type: ignore[no-untyped-call]

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the mass of the nearest level.

        Args:
            value: Values in [low, high].
        """
        if self._validate_args:
            self._validate_sample(value)
        index = ((value - self.low) / self.step).round()
        level = self.low + index * self.step
        half = 0.5 * self.step
        upper, lower = (
            (level - self.loc + half) / self.scale,
            (level - self.loc - half) / self.scale,
        )
        # F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)): no difference of two numbers near 1
        width = torch.log(-torch.expm1(-self.step / self.scale))
        inside = logsigmoid(upper) + logsigmoid(-lower) + width
        lowest = logsigmoid(upper)
        highest = logsigmoid(-lower)
        ends = torch.where(index >= self.levels - 1, highest, inside)
        return torch.where(index <= 0, lowest, ends)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws levels."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            drawn = self.loc + self.scale * torch.logit(uniform, eps=1e-7)
            index = ((drawn - self.low) / self.step).round().clamp(0, self.levels - 1)
            return self.low + index * self.step
