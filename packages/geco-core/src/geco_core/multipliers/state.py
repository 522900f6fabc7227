"""The multipliers' memory: a small table on the device, its ascent, what can be read from it."""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from geco_core.constraints.base import Measure
from geco_core.multipliers.observed import Seen
from geco_core.multipliers.update import COMMON_ROWS, ColumnUpdate, MultiplierUpdate, Observation

if TYPE_CHECKING:
    from torch import distributed as dist

__all__ = ["Multipliers", "by_column", "has_common_rows"]

_CODES: dict[torch.dtype, Literal["f", "d"]] = {torch.float32: "f", torch.float64: "d"}
_HALVES = (torch.float16, torch.bfloat16)
_LOGARITHM = "log_multiplier"
SKIPPED = COMMON_ROWS.index("skipped")
#: The largest number of float32.
LARGEST = torch.finfo(torch.float32).max
#: Up to how many multipliers plain numbers are quicker than tensors.
FEW = 8


class Multipliers(nn.Module):
    r"""Multipliers, moving averages and counts of :math:`L` multipliers.

    All of it is one buffer and never a parameter: no optimizer moves a multiplier, and an ascent
    costs the same few operations for one multiplier and for many. Violations come in the units
    of the rule, relative to their scale or not; the scales are only needed to read the table.

    The table is float32 at least, whatever the default dtype: half precision would lose every
    ascent below one part in a thousand.

    Args:
        update: The rule.
        count: The number :math:`L` of multipliers.
    """

    table: Tensor

    def __init__(self, update: MultiplierUpdate, count: int) -> None:
        super().__init__()
        self.update = update
        self.register_buffer("table", _at_least_float32(update.table(count)))
        # the table in plain numbers, which table it is, and in which version
        self._known: tuple[Tensor, int, Sequence[Mapping[str, float]]] | None = None
        self._staging: tuple[array[float], Tensor] | None = None
        self._constants: dict[tuple[float, ...], Tensor] = {}

    def observe(
        self,
        loss: Tensor,
        measures: Sequence[Measure],
        scales: Sequence[float],
        elements: Sequence[float],
        examples: int,
        ranks: "tuple[dist.ProcessGroup | None] | None" = None,
    ) -> Seen:
        r"""What the rule sees of a batch.

        Args:
            loss: The mean of the KL or other loss that is minimised, a scalar.
            measures: What each constraint says of the batch.
            scales: What the violations of each constraint are divided by: its scale, or 1.
            elements: The elements of an example for each constraint, NaN where unknown.
            examples: The examples of the batch.
            ranks: The process group, in a tuple, whose ranks see a part of the batch each; None
                where this process sees all of it.
        """
        self.widen()
        plain = all(
            m.examples is None
            and m.share is None
            and type(m.value) is Tensor
            and m.value.ndim == 0
            for m in measures
        )
        if plain and ranks is None and self.on_host(len(measures)):
            numbers = [cast("float", m.value.tolist()) for m in measures]
            violation = [number / scale for number, scale in zip(numbers, scales, strict=True)]
            known = [float(value) for value in elements]
            seen = Observation(violation, cast("float", loss.tolist()), known, 1.0)
            return Seen(seen, None, examples)
        values, counts, shares, known = [], [], [], []
        for m, scale, value in zip(measures, scales, elements, strict=True):
            values.append(m.value.detach().reshape(-1).to(self.table.dtype) / scale)
            counts.append(
                torch.full_like(values[-1], examples) if m.examples is None else m.examples
            )
            shares.append(torch.ones_like(values[-1]) if m.share is None else m.share)
            known += [value] * len(values[-1])
        observation = Observation(
            torch.cat(values),
            loss.detach().to(self.table.dtype),
            self.constant(known),
            1.0 if all(m.share is None for m in measures) else _joined(shares, values[0]),
        )
        whole = all(m.examples is None for m in measures)
        here = Seen(observation, None if whole else _joined(counts, values[0]), examples)
        return here if ranks is None else here.over_ranks(*ranks)

    def widen(self) -> None:
        """Makes the table float32 at least, whatever was done to it."""
        if self.table.dtype in _HALVES:
            # whoever converts buffers behind the module's back, as FSDP's `buffer_dtype` does
            self.table = self.table.float()

    def weighted(
        self, loss: Tensor, measures: Sequence[Measure], scales: Sequence[float], seen: Seen
    ) -> Tensor:
        """The sum of the loss and of the violations, each with the rule's weight."""
        observation = seen.observation
        if seen.on_host:
            return self._weighted_on_host(loss, measures, scales, observation)
        update, table = self.update, self.table
        values = torch.cat(
            [m.value.reshape(-1) / scale for m, scale in zip(measures, scales, strict=True)]
        )
        if update.straight_through:
            # the value of the average with the gradient of the batch
            average = update.advance(table, observation)[1].to(values.dtype)
            values = average + (values - values.detach())
        loss_weight, weights = update.weights(table, observation)
        if any(m.share is not None for m in measures):
            # the shares of this rank: the mean over ranks is that of the whole batch
            ours = [torch.ones_like(m.value) if m.share is None else m.share for m in measures]
            weights = weights * _joined(ours, values)
        return torch.dot(values, weights.to(values.dtype)) + loss * loss_weight

    def _weighted_on_host(
        self,
        loss: Tensor,
        measures: Sequence[Measure],
        scales: Sequence[float],
        observation: Observation,
    ) -> Tensor:
        update, columns = cast("ColumnUpdate", self.update), self.columns()
        each = by_column(observation)
        loss_weight, weights = update.host_weights(columns, each)
        total = loss * loss_weight
        for m, weight, scale in zip(measures, weights, scales, strict=True):
            # a rule without bounds may run away, which is infinite and no error
            alpha = min(max(weight / scale, -LARGEST), LARGEST)
            total = torch.add(total, m.value, alpha=alpha)
        if update.straight_through:
            # the value of the average with the gradient of the batch
            moved = update.host_advance(columns, each)
            pairs = zip(weights, moved, observation.violation, strict=True)
            total = total + sum(w * (to["moving_average"] - value) for w, to, value in pairs)
        return total

    def ascend(self, seen: Seen) -> None:
        """Moves every multiplier whose violation is finite and was seen, and counts the others.

        Without a finite loss none moves. Multipliers of which no example was seen stay as they
        are, uncounted.
        """
        table, observation, enough = self.table, seen.observation, seen.enough()
        if seen.on_host:
            self._ascend_on_host(observation, cast("list[bool] | None", enough))
            return
        if self.table.dtype != observation.violation.dtype:
            violation, loss, elements, share = observation
            violation, loss = violation.to(table.dtype), loss.to(table.dtype)
            observation = Observation(violation, loss, elements.to(table.dtype), share)
        violation, loss = observation.violation, observation.loss
        moved = self.update.advance(table, observation)
        kept = torch.cat([table[:SKIPPED], table[SKIPPED:][:1] + 1.0, table[SKIPPED + 1 :]])
        # nothing but a finite number is 0 after taking itself away
        finite = (violation - violation).add(loss - loss).eq(0.0)
        moved = torch.where(finite, moved, kept)
        if enough is not None:
            moved = torch.where(cast("Tensor", enough), moved, table)
        if torch.compiler.is_compiling():
            # compiled together with the loss, a table changed in place would be read by a
            # backward that recomputes the weights: wrong gradients without an error
            self.table = moved
        else:
            table.copy_(moved)

    def joined(self, one: Seen, other: Seen) -> Seen:
        """The means over the examples of two micro-batches."""
        return self.in_tensors(one).joined_with(self.in_tensors(other))

    def in_tensors(self, seen: Seen) -> Seen:
        """The same in tensors, of the kind of the table."""
        if not seen.on_host:
            return seen
        violation, loss, elements, share = seen.observation
        counts = self.as_tensor(seen.counts) if isinstance(seen.counts, list) else seen.counts
        values = (self.as_tensor(violation), self.as_tensor(loss), self.as_tensor(elements))
        return seen._replace(observation=Observation(*values, share), counts=counts)

    def on_host(self, columns: int, few: int = FEW) -> bool:
        """Whether plain numbers may be used: in host memory, known, and not being traced."""
        if columns > few or torch.compiler.is_compiling():
            return False
        table = self._buffers["table"]  # quicker than the attribute
        return (
            type(table) is Tensor  # fake tensors are subclasses
            and table.is_cpu
            and not table.is_inference()  # these have no version
            and isinstance(self.update, ColumnUpdate)
            and table.shape[1] == columns
        )

    def _ascend_on_host(self, observation: Observation, enough: list[bool] | None) -> None:
        table, update, before = self.table, cast("ColumnUpdate", self.update), self.columns()
        columns = update.host_advance(before, by_column(observation))
        if enough is not None:
            both = zip(columns, before, enough, strict=True)
            columns = [new if moves else old for new, old, moves in both]
        # a tensor over memory that is written as plain numbers: much quicker than torch.tensor
        memory, view = self._staging or self._stage(table)
        if view.dtype is not table.dtype or view.shape != table.shape:
            memory, view = self._stage(table)
        rows, width = tuple(columns[0]), len(columns)
        numbers = [column[row] for row in rows for column in columns]
        memory[:] = array(_CODES[table.dtype], numbers)
        table.copy_(view)
        # what the table holds and not what was computed: a resumed run reads the former
        held = memory.tolist()
        columns = [dict(zip(rows, held[i::width], strict=True)) for i in range(width)]
        # straight into the dictionary: a module's own assignment is slow
        self.__dict__["_known"] = (table, table._version, columns)

    def _stage(self, table: Tensor) -> "tuple[array[float], Tensor]":
        """Memory of the table's kind, and a tensor of the table's shape over it."""
        memory: array[float] = array(_CODES[table.dtype], bytes(table.nbytes))
        view = torch.frombuffer(memory, dtype=table.dtype).view(table.shape)
        self.__dict__["_staging"] = memory, view
        return memory, view

    def columns(self) -> Sequence[Mapping[str, float]]:
        """The table in plain numbers, read anew only where somebody else has changed it."""
        table, known = self.table, self._known
        if known is not None and known[0] is table and known[1] == table._version:
            return known[2]
        rows = self.update.rows
        columns = [dict(zip(rows, column, strict=True)) for column in table.t().tolist()]
        self.__dict__["_known"] = (table, table._version, columns)
        return columns

    def multiplier(self, scales: Sequence[float]) -> Tensor:
        r"""The multipliers :math:`\lambda` of the violations in their own units, :math:`(L,)`."""
        value = self.table[0]
        return value / self.as_tensor(scales) if self.update.relative else value.clone()

    def relative_multiplier(self, scales: Sequence[float]) -> Tensor:
        r"""The multipliers times the scales, :math:`(L,)`."""
        value = self.table[0]
        return value.clone() if self.update.relative else value * self.as_tensor(scales)

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
        """How many ascents were skipped because a value was not finite, :math:`(L,)`."""
        return self.table[SKIPPED].long()

    def with_rows(self, table: Tensor, rows: Sequence[str]) -> Tensor:
        """A saved table in the rule's rows: those that it lacks are as at the start."""
        own = _at_least_float32(self.update.table(table.shape[1])).to(table.device, copy=True)
        saved = dict(zip(rows, table, strict=True))
        if "multiplier" not in saved:  # as the first version wrote it
            saved["multiplier"] = saved[_LOGARITHM].exp()
        for index, row in enumerate(self.update.rows):
            if row in saved:
                own[index] = saved[row]
        return own

    def extra_repr(self) -> str:
        """The rule and the number of multipliers."""
        return f"{self.update}, count={self.table.shape[1]}"

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles read their own table."""
        return {**self.__dict__, "_known": None, "_staging": None, "_constants": {}}

    def as_tensor(self, values: Sequence[float] | float) -> Tensor:
        """Numbers, or one, as a tensor of the table's kind."""
        return torch.tensor(values, dtype=self.table.dtype, device=self.table.device)

    def constant(self, values: Sequence[float]) -> Tensor:
        """Numbers that hardly ever change as a tensor, without sending them each time."""
        if torch.compiler.is_compiling() or type(self.table) is not Tensor:
            return self.as_tensor(values)
        key = tuple(values)
        known = self._constants.get(key)
        if known is None or known.dtype != self.table.dtype or known.device != self.table.device:
            known = self.as_tensor(values)
            self.__dict__["_constants"] = {key: known}
        return known

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.table = _at_least_float32(self.table)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = self.table
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before.is_meta and not self.table.is_meta:
            # as after the constructor: what was in that memory before is nobody's multiplier
            start = _at_least_float32(self.update.table(before.shape[1]))
            self.table = start.to(self.table.device, self.table.dtype)
        if self.table.dtype in _HALVES:
            self.table = before.to(self.table.device)
        return self


def has_common_rows(rows: Iterable[str]) -> bool:
    """Whether a saved table has what all rules need, as this or the first version wrote it."""
    # the first version held the logarithm in place of the multiplier
    return {*COMMON_ROWS} <= {"multiplier" if row == _LOGARITHM else row for row in rows}


def by_column(observation: Observation) -> list[Observation]:
    """Observations of single multipliers, in plain numbers."""
    violation, loss, elements, _ = observation
    losses = loss if isinstance(loss, list) else [loss] * len(violation)
    each = zip(violation, losses, elements, strict=True)
    return [Observation(v, one, d, 1.0) for v, one, d in each]


def _joined(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.cat([part.detach().reshape(-1).to(like.dtype) for part in parts])


def _at_least_float32(table: Tensor) -> Tensor:
    return table.float() if table.dtype in _HALVES else table
