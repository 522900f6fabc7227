r"""What a rule for the multipliers is.

A rule is a frozen description. It owns no memory: it reads a table with one column per
multiplier, held by :class:`geco_core.multipliers.state.Multipliers`, and returns the next one. The
first rows are common to all rules (:data:`COMMON_ROWS`); beyond them a rule may have any rows that
it likes. There are two ways to write one:

- :class:`ColumnUpdate`, whose formula is the same for every multiplier: it is written once, in
  operators and the functions of :mod:`geco_core.multipliers.arithmetic`, and works on numbers of
  the host and on tensors of a device;
- :class:`MultiplierUpdate`, arithmetic on tensors, for rules in which multipliers see each other.

Nothing in either may wait for the device, and all of it can be compiled.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geco_core.multipliers.arithmetic import NUMBERS, TENSORS, Arithmetic, Number
from geco_core.multipliers.outlook import Outlook

__all__ = ["COMMON_ROWS", "ColumnUpdate", "MultiplierUpdate", "Observation"]

#: The rows that every rule has: the multiplier, the moving average of the violation, the number
#: of ascents made, the number of ascents skipped because a value was not finite.
COMMON_ROWS = ("multiplier", "moving_average", "ascents", "skipped")


class Observation(NamedTuple):
    r"""What was seen of a batch, detached: of all its examples, on all ranks.

    Tensors :math:`(L,)` with one value per multiplier, or, for :class:`ColumnUpdate` on the host,
    the numbers of one multiplier.
    """

    violation: Number
    """The mean violation, in the units of the rule; 0 where nothing was observed."""
    loss: Number
    """The mean of the KL or other loss that is minimised, a scalar; :math:`(L,)` where
    multipliers belong to tolerances of a range, of the examples near each."""
    elements: Number
    """The elements of an example that the constraint is a mean over, NaN where unknown."""
    share: Number
    """The share of the batch that the multiplier speaks of: 1 unless there are groups."""


class MultiplierUpdate(ABC):
    r"""A rule for the multipliers' ascent.

    A rule that is :attr:`relative` works on the relative violations :math:`C / s`, with
    :math:`s` the constraint's scale, and so do the rows of its table: its multiplier is
    :math:`\lambda s`.
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
        r"""The table at the start, :math:`(\text{rows}, L)`: zeros, and multipliers of 1.

        In float32 at least, whatever the default dtype.
        """
        dtype = torch.promote_types(torch.float32, torch.get_default_dtype())
        table = torch.zeros(len(self.rows), constraints, dtype=dtype)
        table[0] = 1.0
        return table

    @abstractmethod
    def weights(self, table: Tensor, observation: Observation) -> tuple[Tensor, Tensor]:
        r"""The weights in the loss.

        Args:
            table: The rule's table, :math:`(\text{rows}, L)`.
            observation: What was seen of the batch.

        Returns:
            The weight of the KL, a scalar, and those of the violations, :math:`(L,)`, each of
            which is multiplied by the multiplier's share of the batch afterwards.
        """

    @abstractmethod
    def advance(self, table: Tensor, observation: Observation) -> Tensor:
        r"""The table after one ascent.

        Args:
            table: The rule's table, :math:`(\text{rows}, L)`.
            observation: What was seen since the last ascent. Columns where the violation or the
                loss is not finite may become anything: the caller keeps the old ones.

        Returns:
            The new table; the row of skipped ascents is left to the caller.
        """

    def saturated(self, table: Tensor) -> Tensor:
        """Which multipliers are stuck while still violated, :math:`(L,)`; none by default.

        Args:
            table: The rule's table, of which any row may be read.
        """
        return torch.zeros_like(table[0], dtype=torch.bool)

    def outlook(self, table: Tensor) -> Outlook | None:
        """What can still be expected of each constraint; None where the rule does not know.

        Args:
            table: The rule's table, of which any row may be read.
        """
        return None

    def columns(self, table: Tensor) -> dict[str, Tensor]:
        r"""The rows of a table by name, each :math:`(L,)`."""
        return dict(zip(self.rows, table.unbind(0), strict=True))


class ColumnUpdate(MultiplierUpdate):
    r"""A rule whose formula is the same for every multiplier, written once for one of them.

    With :math:`w_l` and :math:`d_l` as :meth:`weigh` returns them and :math:`\rho_l` the share of
    the batch that multiplier :math:`l` speaks of, the loss is
    :math:`(KL + \sum_l \rho_l w_l c_l) / D` with :math:`D` = :meth:`divisor` of
    :math:`\sum_l \rho_l d_l`.
    """

    __slots__ = ()

    @abstractmethod
    def weigh(
        self, m: Arithmetic, column: Mapping[str, Number], seen: Observation
    ) -> tuple[Number, Number]:
        """The weight of a violation before division, and what it adds to the divisor.

        Args:
            m: The functions that may be used.
            column: The rows of the table by name.
            seen: What was seen of the batch.
        """

    @abstractmethod
    def move(
        self, m: Arithmetic, column: Mapping[str, Number], seen: Observation
    ) -> Mapping[str, Number]:
        """The rows after one ascent by name; that of skipped ascents is ignored.

        Args:
            m: The functions that may be used.
            column: The rows of the table by name.
            seen: What was seen since the last ascent.
        """

    def divisor(self, m: Arithmetic, total: Number) -> Number:
        """What the loss is divided by, given the sum over the multipliers: 1 more."""
        return 1.0 + total

    def weights(self, table: Tensor, observation: Observation) -> tuple[Tensor, Tensor]:
        """The formula on tensors."""
        weight, adds = self.weigh(TENSORS, self.columns(table), observation)
        total = (adds * observation.share * torch.ones_like(table[0])).sum()
        divisor = self.divisor(TENSORS, total)
        kl_weight = torch.ones_like(total) / divisor
        return kl_weight, weight * kl_weight

    def advance(self, table: Tensor, observation: Observation) -> Tensor:
        """The formula on tensors."""
        columns = self.columns(table)
        moved = {**columns, **self.move(TENSORS, columns, observation)}
        return torch.stack([moved[row] for row in self.rows])

    def host_weights(
        self, columns: Sequence[Mapping[str, float]], seen: Sequence[Observation]
    ) -> tuple[float, list[float]]:
        """The formula on numbers: the rows by name and one observation for each column."""
        total, weights = 0.0, []
        for column, one in zip(columns, seen, strict=True):
            weight, adds = self.weigh(NUMBERS, column, one)
            weights.append(weight)
            total += adds
        kl_weight = 1.0 / self.divisor(NUMBERS, total)
        return kl_weight, [weight * kl_weight for weight in weights]

    def host_advance(
        self, columns: Sequence[Mapping[str, float]], seen: Sequence[Observation]
    ) -> list[Mapping[str, float]]:
        """The formula on numbers; columns that are not finite are kept and counted."""
        return [
            {**column, **self.move(NUMBERS, column, one)}
            if NUMBERS.isfinite(one.violation) and NUMBERS.isfinite(one.loss)
            else {**column, "skipped": column["skipped"] + 1.0}
            for column, one in zip(columns, seen, strict=True)
        ]
