r"""How multipliers move: Algorithm 1 as printed, and the default that needs no tuning.

An update is a frozen description of a rule. It owns no state: the rule reads and writes a table
with one column per constraint, held by :class:`geco_core.multipliers.Multipliers`, whose first
rows are common to all rules (:data:`COMMON_ROWS`).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["COMMON_ROWS", "MultiplierUpdate", "PaperUpdate", "RobustUpdate"]

#: The rows that every rule has: logarithm of the multiplier, moving average of the violation,
#: number of ascents made, number of ascents skipped because the violation was not finite.
COMMON_ROWS = ("log_multiplier", "moving_average", "ascents", "skipped")


class MultiplierUpdate(ABC):
    """A rule for the multipliers' ascent."""

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the rows of the rule's table."""
        return COMMON_ROWS

    @abstractmethod
    def initial_log_multiplier(self) -> float:
        """The value that every multiplier starts from, as a logarithm."""

    @property
    @abstractmethod
    def relative(self) -> bool:
        r"""Whether the multipliers are those of the relative violations :math:`C / s`."""

    @property
    def straight_through(self) -> bool:
        """Whether the loss takes its value from the moving average of the violation."""
        return False

    @abstractmethod
    def advance(self, table: Tensor, violation: Tensor) -> Tensor:
        r"""The table after one ascent.

        Args:
            table: The rule's table, :math:`(\text{rows}, L)`.
            violation: The violations, :math:`(L,)`; relative ones if :attr:`relative`.

        Returns:
            The new table; columns whose violation is not finite are handled by the caller.
        """

    @abstractmethod
    def weights(self, table: Tensor) -> Tensor:
        """The weights of the KL and of every violation in the loss, :math:`(1 + L,)`."""

    @abstractmethod
    def saturated(self, table: Tensor) -> Tensor:
        """Which multipliers are at their upper bound while still violated, :math:`(L,)`."""

    @abstractmethod
    def average(self, table: Tensor, violation: Tensor) -> Tensor:
        """The moving average with one more violation, :math:`(L,)`."""


@dataclass(frozen=True, slots=True)
class PaperUpdate(MultiplierUpdate):
    r"""Algorithm 1, exactly as printed.

    .. math::

        \bar C^t = \alpha \bar C^{t-1} + (1 - \alpha) \hat C^t, \quad \bar C^0 = \hat C^0,
        \qquad \lambda \leftarrow \lambda \exp(\eta \bar C^t),

    with :math:`\hat C^t` the mean of the violation over the batch and :math:`\lambda = 1` at the
    start. The loss is :math:`KL + \lambda^\top C^t`, where :math:`C^t` has the value of the
    moving average and the gradient of the batch. Nothing is clipped, bounded or rescaled.

    Args:
        rate: The step size :math:`\eta`.
        decay: The decay :math:`\alpha` of the moving average.

    Raises:
        ValueError: If `rate` is not positive and finite, or `decay` not in [0, 1).
    """

    rate: float = 1e-2
    decay: float = 0.99

    def __post_init__(self) -> None:
        _check_positive("rate", self.rate)
        _check_decay(self.decay)

    def initial_log_multiplier(self) -> float:
        return 0.0

    @property
    def relative(self) -> bool:
        return False

    @property
    def straight_through(self) -> bool:
        return True

    def average(self, table: Tensor, violation: Tensor) -> Tensor:
        moved = self.decay * table[1] + (1.0 - self.decay) * violation
        return torch.where(table[2] == 0, violation, moved)

    def advance(self, table: Tensor, violation: Tensor) -> Tensor:
        average = self.average(table, violation)
        return torch.stack(
            [table[0] + self.rate * average, average, table[2] + 1, table[3]],
        )

    def weights(self, table: Tensor) -> Tensor:
        return torch.cat([table.new_ones(1), table[0].exp()])

    def saturated(self, table: Tensor) -> Tensor:
        return torch.zeros_like(table[0], dtype=torch.bool)


@dataclass(frozen=True, slots=True)
class RobustUpdate(MultiplierUpdate):
    r"""The default: bounded ascent in the log of the relative multiplier, rescaled loss.

    .. math::

        u \leftarrow \operatorname{clip}\left(u + \eta \operatorname{clip}(\hat C / s, -1, 1),
        u_{\min}, u_{\max}\right), \qquad
        \text{loss} = \frac{KL + \sum_l e^{u_l} C_l / s_l}{1 + \sum_l e^{u_l}}

    Args:
        rate: The step size :math:`\eta` of the log-multiplier.
        decay: The decay of the reported moving average.
        bounds: The lowest and the highest relative multiplier.

    Raises:
        ValueError: If an argument is outside of its range.
    """

    rate: float = 0.02
    decay: float = 0.99
    bounds: tuple[float, float] = (1e-4, 1e6)

    def __post_init__(self) -> None:
        _check_positive("rate", self.rate)
        _check_decay(self.decay)
        lowest, highest = self.bounds
        if not 0.0 < lowest < highest < math.inf:
            raise ValueError(
                f"`bounds` must be (lowest, highest) with 0 < lowest < highest, got {self.bounds}"
            )

    def initial_log_multiplier(self) -> float:
        return min(max(0.0, math.log(self.bounds[0])), math.log(self.bounds[1]))

    @property
    def relative(self) -> bool:
        return True

    def average(self, table: Tensor, violation: Tensor) -> Tensor:
        # the plain mean while there are few values, so that the start is not overweighted
        weight = (1.0 / (table[2] + 1.0)).clamp(min=1.0 - self.decay)
        return torch.lerp(table[1], violation, weight)

    def advance(self, table: Tensor, violation: Tensor) -> Tensor:
        lowest, highest = map(math.log, self.bounds)
        moved = table[0] + self.rate * violation.clamp(-1.0, 1.0)
        return torch.stack(
            [
                moved.clamp(lowest, highest),
                self.average(table, violation),
                table[2] + 1,
                table[3],
            ]
        )

    def weights(self, table: Tensor) -> Tensor:
        return torch.softmax(torch.cat([table.new_zeros(1), table[0]]), 0)

    def saturated(self, table: Tensor) -> Tensor:
        top = math.log(self.bounds[1]) - 1e-4
        return (table[0] >= top) & (table[1] > 0)


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be positive and finite, got {value}")


def _check_decay(value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"`decay` must be in [0, 1), got {value}")
