r"""How multipliers move: what a rule is, and Algorithm 1 as printed.

A rule is a frozen description. It owns no memory: it reads a table with one column per
constraint, held by :class:`geco_core.multipliers.Multipliers`, and returns the next one. The
first rows are common to all rules (:data:`COMMON_ROWS`). Everything is arithmetic on tensors of
a few numbers: nothing waits for the device, and all of it can be compiled.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["COMMON_ROWS", "MultiplierUpdate", "PaperUpdate"]

#: The rows that every rule has: logarithm of the multiplier, moving average of the violation,
#: number of ascents made, number of ascents skipped because the violation was not finite.
COMMON_ROWS = ("log_multiplier", "moving_average", "ascents", "skipped")


class MultiplierUpdate(ABC):
    r"""A rule for the multipliers' ascent.

    A rule that is :attr:`relative` works on the relative violations :math:`C / s`, with
    :math:`s` the constraint's scale, and so do the rows of its table: its log-multiplier is
    :math:`\ln(\lambda s)`.
    """

    __slots__ = ()

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the rows of the rule's table; the first four are common to all rules."""
        return COMMON_ROWS

    @property
    @abstractmethod
    def relative(self) -> bool:
        r"""Whether the table is about the relative violations :math:`C / s`."""

    @property
    def straight_through(self) -> bool:
        """Whether the loss has the value of the moving average and the gradient of the batch."""
        return False

    def table(self, constraints: int) -> Tensor:
        r"""The table at the start, :math:`(\text{rows}, L)`, zeros unless overridden."""
        return torch.zeros(len(self.rows), constraints)

    @abstractmethod
    def weights(self, table: Tensor, violation: Tensor) -> tuple[Tensor, Tensor]:
        r"""The weights in the loss.

        Args:
            table: The rule's table, :math:`(\text{rows}, L)`.
            violation: The detached violations of the batch, :math:`(L,)`.

        Returns:
            The weight of the KL, a scalar, and those of the violations, :math:`(L,)`.
        """

    @abstractmethod
    def average(self, table: Tensor, violation: Tensor) -> Tensor:
        """The moving average with one more violation, :math:`(L,)`."""

    @abstractmethod
    def advance(self, table: Tensor, violation: Tensor) -> Tensor:
        r"""The table after one ascent.

        Args:
            table: The rule's table, :math:`(\text{rows}, L)`.
            violation: The violations, :math:`(L,)`. Columns where it is not finite may become
                anything: the caller keeps the old ones.

        Returns:
            The new table; the row of skipped ascents is left to the caller.
        """

    @property
    def has_host_arithmetic(self) -> bool:
        """Whether :meth:`host_weights` and :meth:`host_advance` are there."""
        return False

    def host_weights(
        self, rows: list[list[float]], violations: list[float]
    ) -> tuple[float, list[float]]:
        """:meth:`weights` in plain numbers.

        On the CPU the arithmetic on a handful of numbers costs a tenth of what it costs as
        operations on tensors, and there is no device to wait for.
        """
        raise NotImplementedError

    def host_advance(self, rows: list[list[float]], violations: list[float]) -> list[list[float]]:
        """:meth:`advance` in plain numbers; columns that are not finite are kept and counted."""
        raise NotImplementedError

    @abstractmethod
    def saturated(self, table: Tensor) -> Tensor:
        """Which multipliers are at their upper bound while still violated, :math:`(L,)`."""


@dataclass(frozen=True, slots=True)
class PaperUpdate(MultiplierUpdate):
    r"""Algorithm 1, exactly as printed.

    .. math::

        \bar C^t = \alpha \bar C^{t-1} + (1 - \alpha) \hat C^t, \quad \bar C^0 = \hat C^0,
        \qquad \lambda \leftarrow \lambda \exp(\eta \bar C^t),

    with :math:`\hat C^t` the mean of the violation over the batch and :math:`\lambda = 1` at the
    start. The loss is :math:`KL + \lambda^\top C^t`, where :math:`C^t` has the value of the
    moving average and the gradient of the batch. Nothing is clipped, bounded or rescaled, so
    the rate must fit the units of the constraint: :math:`\eta` times the violation is the
    change of :math:`\ln \lambda` in one step.

    Args:
        rate: The step size :math:`\eta`.
        decay: The decay :math:`\alpha` of the moving average.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If `rate` is negative or not finite, or `decay` not in [0, 1).
    """

    rate: float = 1e-2
    decay: float = 0.99

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_number("rate", self.rate, 0.0, math.inf)
        check_number("decay", self.decay, 0.0, 1.0)

    @property
    def relative(self) -> bool:
        """False: Algorithm 1 knows no scale."""
        return False

    @property
    def straight_through(self) -> bool:
        """True, as printed."""
        return True

    def weights(self, table: Tensor, violation: Tensor) -> tuple[Tensor, Tensor]:
        r"""1 and :math:`\lambda`."""
        return table.new_ones(()), table[0].exp()

    def average(self, table: Tensor, violation: Tensor) -> Tensor:
        r"""The average :math:`\bar C^t`; its first value is the first violation."""
        moved = self.decay * table[1] + (1.0 - self.decay) * violation
        return torch.where(table[2] == 0, violation, moved)

    def advance(self, table: Tensor, violation: Tensor) -> Tensor:
        """One line of Algorithm 1."""
        average = self.average(table, violation)
        return torch.stack([table[0] + self.rate * average, average, table[2] + 1, table[3]])

    def saturated(self, table: Tensor) -> Tensor:
        """Nowhere: there is no bound."""
        return torch.zeros_like(table[0], dtype=torch.bool)


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Checks that a number is in [low, high).

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"`{name}` must be a number, got {type(value).__name__}")
    if not low <= value < high:  # NaN included
        allowed = f"in [{low:g}, {high:g})" if math.isfinite(high) else f"finite and >= {low:g}"
        raise ValueError(f"`{name}` must be {allowed}, got {value}")
