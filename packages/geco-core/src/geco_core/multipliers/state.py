"""The multipliers' memory: a small table on the device, its ascent, what can be read from it."""

from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from geco_core.multipliers.update import COMMON_ROWS, MultiplierUpdate

__all__ = ["Multipliers"]

_CODES: dict[torch.dtype, Literal["f", "d"]] = {torch.float32: "f", torch.float64: "d"}
SKIPPED = COMMON_ROWS.index("skipped")


class Multipliers(nn.Module):
    r"""Log-multipliers, moving averages and counts of :math:`L` constraints.

    All of it is one buffer and never a parameter: no optimizer moves a multiplier, and an ascent
    costs the same few operations for one constraint and for many. Violations come in the units
    of the rule, relative to their scale or not; the scales are only needed to read the table.

    Args:
        update: The rule.
        constraints: The number :math:`L` of constraints.
    """

    table: Tensor
    one_skipped: Tensor

    def __init__(self, update: MultiplierUpdate, constraints: int) -> None:
        super().__init__()
        self.update = update
        self.register_buffer("table", update.table(constraints))
        one_skipped = torch.zeros(len(update.rows), 1)
        one_skipped[SKIPPED] = 1.0
        self.register_buffer("one_skipped", one_skipped, persistent=False)
        # the table in plain numbers, which table it is, and in which version
        self._known: tuple[Tensor, int, list[list[float]]] | None = None
        self._staging: tuple[array[float], Tensor] | None = None

    def ascend(self, violation: Tensor) -> None:
        r"""Moves every multiplier whose violation is finite, and counts the others.

        Args:
            violation: The detached mean violation of every constraint in the units of the rule,
                :math:`(L,)`.
        """
        table = self.table
        if violation.dtype != table.dtype:
            violation = violation.to(table.dtype)
        moved = self.update.advance(table, violation)
        kept = table + self.one_skipped
        # nothing but a finite number is 0 after taking itself away
        finite = violation.sub(violation).eq(0.0)
        if torch.compiler.is_compiling():
            # compiled together with the loss, a table changed in place would be read by a
            # backward that recomputes the weights: wrong gradients without an error
            self.table = torch.where(finite, moved, kept)
        else:
            torch.where(finite, moved, kept, out=table)

    @property
    def on_host(self) -> bool:
        """Whether plain numbers may be used: in host memory, known, and not being traced."""
        if torch.compiler.is_compiling():
            return False
        table = self._buffers["table"]  # quicker than the attribute
        return (
            type(table) is Tensor  # fake tensors are subclasses
            and table.is_cpu
            and not table.is_inference()  # these have no version
            and self.update.has_host_arithmetic
        )

    def host_weights(self, violations: list[float]) -> tuple[float, list[float]]:
        """The weights of the KL and of the violations in the rule's units, in plain numbers."""
        return self.update.host_weights(self._rows(self.table), violations)

    def host_ascend(self, violations: list[float]) -> None:
        """:meth:`ascend` in plain numbers."""
        table = self.table
        rows = self.update.host_advance(self._rows(table), violations)
        if table.dtype not in _CODES:
            table.copy_(torch.tensor(rows, dtype=table.dtype))
            return
        # a tensor over memory that is written as plain numbers: much quicker than torch.tensor
        memory, view = self._staging or self._stage(table)
        if view.dtype is not table.dtype or view.shape != table.shape:
            memory, view = self._stage(table)
        memory[:] = array(_CODES[table.dtype], chain.from_iterable(rows))
        table.copy_(view)
        # what the table holds and not what was computed: a resumed run reads the former
        flat, width = memory.tolist(), len(violations)
        rows = [flat[i : i + width] for i in range(0, len(flat), width)]
        # straight into the dictionary: a module's own assignment is slow
        self.__dict__["_known"] = (table, table._version, rows)

    def _stage(self, table: Tensor) -> "tuple[array[float], Tensor]":
        """Memory of the table's kind, and a tensor of the table's shape over it."""
        memory: array[float] = array(_CODES[table.dtype], bytes(table.nbytes))
        view = torch.frombuffer(memory, dtype=table.dtype).view(table.shape)
        self.__dict__["_staging"] = memory, view
        return memory, view

    def _rows(self, table: Tensor) -> list[list[float]]:
        """The table in plain numbers, read anew only where somebody else has changed it."""
        known = self._known
        if known is not None and known[0] is table and known[1] == table._version:
            return known[2]
        rows: list[list[float]] = table.tolist()
        self.__dict__["_known"] = (table, table._version, rows)
        return rows

    def multiplier(self, scales: Sequence[float]) -> Tensor:
        r"""The multipliers :math:`\lambda` of the violations in their own units, :math:`(L,)`."""
        value = self.table[0].exp()
        return value / self.as_tensor(scales) if self.update.relative else value

    def relative_multiplier(self, scales: Sequence[float]) -> Tensor:
        r"""The multipliers times the scales, :math:`(L,)`."""
        value = self.table[0].exp()
        return value if self.update.relative else value * self.as_tensor(scales)

    def moving_average(self, scales: Sequence[float]) -> Tensor:
        """The moving averages of the violations in their own units, NaN before the first."""
        average = torch.where(self.table[2] > 0, self.table[1], torch.nan)
        return self.in_own_units(average, scales)

    def in_own_units(self, violation: Tensor, scales: Sequence[float]) -> Tensor:
        """Violations :math:`(L,)` of the rule's units in the constraints' own units."""
        return violation * self.as_tensor(scales) if self.update.relative else violation

    def saturated(self) -> Tensor:
        """Which multipliers are at their upper bound while still violated, :math:`(L,)`."""
        return self.update.saturated(self.table)

    def skipped(self) -> Tensor:
        """How many ascents were skipped because a violation was not finite, :math:`(L,)`."""
        return self.table[SKIPPED].long()

    def extra_repr(self) -> str:
        """The rule and the number of constraints."""
        return f"{self.update}, constraints={self.table.shape[1]}"

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles read their own table."""
        return {**self.__dict__, "_known": None, "_staging": None}

    def as_tensor(self, scales: Sequence[float]) -> Tensor:
        """Numbers as a tensor of the table's kind."""
        return torch.tensor(scales, dtype=self.table.dtype, device=self.table.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before, one_skipped = self.table, self.one_skipped
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.table.dtype in (torch.float16, torch.bfloat16):
            # half precision would lose every ascent below one part in a thousand
            self.table = before.to(self.table.device)
            self.one_skipped = one_skipped.to(self.table.device)
        return self
