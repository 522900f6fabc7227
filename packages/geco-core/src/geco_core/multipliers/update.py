r"""What a rule for the multipliers is.

A rule is a frozen description. It owns no memory: it reads a table with one column per
constraint, held by :class:`geco_core.multipliers.state.Multipliers`, and returns the next one. The
first rows are common to all rules (:data:`COMMON_ROWS`). Everything is arithmetic on tensors of
a few numbers: nothing waits for the device, and all of it can be compiled.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["COMMON_ROWS", "MultiplierUpdate"]

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
