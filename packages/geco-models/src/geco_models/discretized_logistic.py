"""A logistic density gathered into the levels of 8-bit images, as a `torch` distribution."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional

from geco_models.validation import as_positive

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(Distribution):
    r"""A logistic density gathered into equal levels, for 8-bit images as numbers in [0, 1].

    With the logistic distribution function :math:`F` and levels :math:`x = k / (L - 1)`,

    .. math::
        P(x) = F\left(\frac{x - m + h}{s}\right) - F\left(\frac{x - m - h}{s}\right), \qquad
        h = \frac{1}{2 (L - 1)}

    where the lowest and the highest level also take what lies beyond. Any number that is given to
    `log_prob` counts as its nearest level.

    References:
        PixelCNN++ (Salimans et al., 2017), section 2.1, https://arxiv.org/abs/1701.05517

    Args:
        loc: The location :math:`m`, in [0, 1] for most, any shape.
        scale: The scale :math:`s`, positive, of the same shape.
        levels: The number of levels :math:`L`, at least 2.
        validate_args: Whether arguments and values are checked, as for every distribution of
            torch; None for torch's own default.

    Raises:
        TypeError: If `levels` is not an integer.
        ValueError: If there are fewer than 2 levels, or `scale` is not positive.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    has_rsample = False

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        levels: int = 256,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)  # type: ignore[no-untyped-call]
        self.levels = as_positive(levels, "levels", minimum=2)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Numbers in [0, 1]."""
        return constraints.unit_interval

    @property
    def mean(self) -> Tensor:
        """The location; that of the levels differs by what is cut off beyond 0 and 1."""
        loc: Tensor = self.loc
        return loc

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogistic":
        """The same distribution over a larger batch."""
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretizedLogistic(loc, scale, self.levels, validate_args=False)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws levels, without gradients (torch's global generator, as all distributions)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        eps = torch.finfo(self.loc.dtype).tiny
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        x = self.loc + self.scale * torch.logit(uniform, eps=max(eps, 1e-7))
        return self._level(x)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability in nats of the nearest level, element by element."""
        if self._validate_args:
            self._validate_sample(value)
        x = self._level(value)
        half = 0.5 / (self.levels - 1)
        above = (x - self.loc + half) / self.scale
        below = (x - self.loc - half) / self.scale
        # F(a) - F(b) = F(a) F(-b) (1 - e^(b - a)): exact in both tails, and never the log of 0
        width = torch.log(-torch.expm1(-2 * half / self.scale))
        inner = functional.logsigmoid(above) + functional.logsigmoid(-below) + width
        lowest, highest = x < half, x > 1 - half
        result = torch.where(lowest, functional.logsigmoid(above), inner)
        return torch.where(highest, functional.logsigmoid(-below), result)

    def _level(self, x: Tensor) -> Tensor:
        return torch.round(x.clamp(0, 1) * (self.levels - 1)) / (self.levels - 1)
