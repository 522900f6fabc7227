r"""A range of tolerances in place of one, for models that take the tolerance as an input.

The place of a tolerance in its range is :math:`p \in [0, 1]`, from the tight end to the loose one,
linear in the logarithm of what is allowed: :math:`\ln \kappa^2` for squared errors,
:math:`\ln (1 - \kappa)` for probabilities and correlations. Multipliers are kept at knots that lie
evenly in :math:`p`; an example belongs to the two knots beside it with hat weights, which add up
to 1 everywhere.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geco_core.validation import check_number

__all__ = ["TINY", "Scale", "ToleranceRange", "hats", "interpolated", "tightest_met"]

#: How far apart knots are at most in the logarithm of kappa for squared errors, twice that in
#: the logarithm of what is allowed.
SPACING = 0.11
FEWEST, MOST = 3, 16
#: Stands for 0 where that would be divided by.
TINY = 1e-30


@dataclass(frozen=True, slots=True)
class ToleranceRange:
    r"""The tolerances between two ends, of which every example has its own.

    Passed as `kappa` of a constraint. The multiplier then is a function of the tolerance, and so
    is the model: it takes the same `kappa` as the objective, `model(x, kappa=kappa)`.

    Args:
        low: The lower end, in the units of the constraint's `kappa`.
        high: The upper end.

    Raises:
        TypeError: If an end is not a number.
        ValueError: If not 0 < low < high.

    Example:
        >>> import torch
        >>> from geco_core import GECO, ReconstructionError
        >>> objective = GECO(ReconstructionError(kappa=ToleranceRange(0.06, 0.2)))
        >>> kappa = objective.draw_tolerance(8)
        >>> x = torch.rand(8, 3)
        >>> g = (x + 0.1 * torch.randn(8, 3)).requires_grad_()
        >>> loss = objective(torch.rand(8), x, g, kappa=kappa)
        >>> objective.step()
        >>> objective.multiplier_at(torch.tensor([0.06, 0.1, 0.2])).shape
        torch.Size([3])
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Checks the ends."""
        low = check_number("low", self.low, -math.inf, math.inf)
        high = check_number("high", self.high, -math.inf, math.inf)
        if not 0 < low < high:
            raise ValueError(
                f"a ToleranceRange must be (low, high) with 0 < low < high, got "
                f"({low:g}, {high:g})"
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def __str__(self) -> str:
        """The ends, as the command line writes them."""
        return f"{self.low:g}..{self.high:g}"

    def __format__(self, spec: str) -> str:
        """The ends, each as a number is formatted."""
        return f"{self.low:{spec or 'g'}}..{self.high:{spec or 'g'}}"


class Scale:
    """Places, tolerances, and what is allowed at each, for a range of one constraint.

    Args:
        ends: The range.
        allowed: What is allowed at a tolerance, a monotone function of numbers and tensors.
        tolerance: Its inverse.
    """

    def __init__(
        self,
        ends: ToleranceRange,
        allowed: Callable[[Any], Any],
        tolerance: Callable[[Any], Any],
    ) -> None:
        self.ends = ends
        self._allowed, self._tolerance = allowed, tolerance
        self._tight, self._loose = (math.log(v) for v in sorted(map(allowed, self._numbers)))
        length = self._loose - self._tight
        #: Which tolerances are tight, in words.
        self.tighter = "smallest" if allowed(ends.low) < allowed(ends.high) else "largest"
        self.knots = min(max(1 + math.ceil(length / (2 * SPACING) - 1e-9), FEWEST), MOST)

    @property
    def _numbers(self) -> tuple[float, float]:
        return self.ends.low, self.ends.high

    def place(self, kappa: Tensor) -> Tensor:
        """The places of tolerances."""
        allowed: Tensor = self._allowed(kappa)
        return (allowed.log() - self._tight) / (self._loose - self._tight)

    def allowed(self, place: Any) -> Any:
        """What is allowed at a place, a number or a tensor."""
        logarithm = self._tight + (self._loose - self._tight) * place
        return logarithm.exp() if isinstance(place, Tensor) else math.exp(logarithm)

    def kappa(self, place: Any) -> Any:
        """The tolerance at a place, a number or a tensor."""
        value = self._tolerance(self.allowed(place))
        low, high = self._numbers
        return value.clamp(low, high) if isinstance(place, Tensor) else min(max(value, low), high)

    def slope(self, kappa: Tensor) -> Tensor:
        """By how much what is allowed changes with the logarithm of the tolerance."""
        step = 1e-3  # a central difference is exact to 1e-6 for squares and straight lines
        high, low = self._allowed(kappa * math.exp(step)), self._allowed(kappa * math.exp(-step))
        difference: Tensor = (high - low).abs() / (2 * step)
        return difference

    def at_knots(self) -> list[float]:
        """The tolerances of the knots, the tightest first."""
        return [self.kappa(index / (self.knots - 1)) for index in range(self.knots)]

    def checked(self, kappa: Any, batch: int, like: Tensor) -> Tensor:
        """The tolerance of every example, :math:`(B,)`, on the device of `like`.

        The values of tensors are only read on a CPU: elsewhere that would make the host wait.

        Raises:
            TypeError: If it is neither a number nor a floating-point tensor.
            ValueError: If it is missing, of a wrong shape, or outside of the range.
        """
        low, high = self._numbers
        if kappa is None:
            raise ValueError(
                f"`kappa` is missing: the tolerance of this objective is the range "
                f"{self.ends}; pass kappa=objective.draw_tolerance(len(x)) to the objective and "
                f"to the model"
            )
        allowed = f"`kappa` must be in [{low:g}, {high:g}], the range of this objective, got"
        if not isinstance(kappa, Tensor):
            number = check_number("kappa", kappa, -math.inf, math.inf)
            if not low * (1 - 1e-6) <= number <= high * (1 + 1e-6):
                raise ValueError(f"{allowed} {number:g}")
            return torch.full((batch,), number, dtype=torch.float32, device=like.device)
        if not kappa.is_floating_point():
            raise TypeError(f"`kappa` must be a number or floating point, got {kappa.dtype}")
        if kappa.shape not in ((), (batch,)):
            raise ValueError(
                f"`kappa` must be a number or hold one tolerance per example, shape ({batch},), "
                f"got {tuple(kappa.shape)}"
            )
        given: Tensor = kappa.detach()
        odd = _outside(given, low, high)
        if odd is not None:
            raise ValueError(f"{allowed} {odd:g}")
        wide = torch.promote_types(given.dtype, torch.float32)
        return given.to(like.device, wide).expand(batch)


def _outside(kappa: Tensor, low: float, high: float) -> float | None:
    """A value outside of the range, or None; also None where values are not to be had."""
    if torch.compiler.is_compiling() or type(kappa) is not Tensor or not kappa.is_cpu:
        return None
    slack = max(1e-6, 4 * torch.finfo(kappa.dtype).eps)  # the ends, rounded to this type
    inside = (kappa >= low * (1 - slack)) & (kappa <= high * (1 + slack))
    try:
        values: list[float] = kappa[~inside].reshape(-1)[:1].tolist()
    except RuntimeError:  # within a transformation of torch.func
        return None
    return values[0] if values else None


def hats(place: Tensor, knots: int) -> Tensor:
    """How much each place belongs to each of some evenly spaced knots.

    Args:
        place: Places in [0, 1], :math:`(*)`; those outside count as the nearest end.
        knots: The number :math:`K` of knots.

    Returns:
        Weights :math:`(*, K)`, at most two of them above 0, which add up to 1.
    """
    steps = place.clamp(0.0, 1.0).unsqueeze(-1) * (knots - 1)
    index = torch.arange(knots, dtype=place.dtype, device=place.device)
    return (1.0 - (steps - index).abs()).clamp(min=0.0)


def interpolated(values: Tensor, weights: Tensor) -> Tensor:
    """Non-negative values between knots, linear in their logarithm.

    Values far below the largest one, 0 among them, are approached linearly.

    Args:
        values: The values at the knots, :math:`(K,)`, or several such rows, :math:`(R, K)`.
        weights: What :func:`hats` returned, :math:`(B, K)`.

    Returns:
        The values, :math:`(B,)` or :math:`(R, B)`.
    """
    floor = 1e-3 * values.amax(-1, keepdim=True) + TINY
    logarithms = (values + floor).log() @ weights.t()
    return (logarithms.exp() - floor).clamp(min=0.0)


def tightest_met(kappa: Sequence[float], reached: Sequence[float], met: Sequence[bool]) -> float:
    """About the tightest tolerance of a range that is met.

    Args:
        kappa: The tolerances of the knots, the tightest first.
        reached: The tolerances that are reached there.
        met: Which of them count as met.

    Returns:
        A tolerance; NaN if none is met.
    """
    first = next((index for index, one in enumerate(met) if one), None)
    if first is None:
        return math.nan
    if first == 0:
        return kappa[0]
    # what is reached instead of a tolerance is itself one that can be reached
    low, high = sorted((kappa[first - 1], kappa[first]))
    return min(max(reached[first - 1], low), high)
