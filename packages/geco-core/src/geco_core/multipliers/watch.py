"""Looking at a table from time to time, without waiting for the device."""

from abc import ABC, abstractmethod
from collections.abc import ItemsView, Iterable
from typing import Protocol

import torch
from torch import Tensor

from geco_core.constraints.base import Constraint
from geco_core.constraints.tolerance import ToleranceConstraint
from geco_core.constraints.tolerance_range import Scale
from geco_core.multipliers.state import Multipliers

__all__ = ["Labelled", "Watch"]

#: How many ascents lie between two looks.
INTERVAL = 64


class Labelled(Protocol):
    """What knows the constraint of every multiplier, by a name of the multiplier."""

    def items(self) -> "ItemsView[str, Constraint]":
        """The pairs, in the order of the table's columns."""

    def ranges(self) -> Iterable[tuple[str, slice, ToleranceConstraint, Scale]]:
        """The constraints with a range of tolerances, and their columns."""


class Watch(ABC):
    """Warns once of each multiplier for which something holds.

    Every so many ascents the flags are copied to the host in the background, and read when the
    copy has long arrived, one interval later. Nothing is read while a compiler traces.
    """

    def __init__(self) -> None:
        self._ascents = 0
        self._flags: Tensor | None = None
        self._said: set[str] = set()

    @abstractmethod
    def flags(self, multipliers: Multipliers) -> Tensor:
        """What is not 0 where there is something to say, one value per multiplier."""

    @abstractmethod
    def read(self, multipliers: Multipliers, labelled: Labelled) -> None:
        """Reads the flags now, and warns of those that have not been warned of."""

    def worth_reading(self, flags: list[float]) -> bool:
        """Whether flags that have arrived call for a look."""
        return any(flags)

    def tick(self, multipliers: Multipliers, labelled: Labelled) -> None:
        """Counts an ascent, and looks when it is time to."""
        self._ascents += 1
        if self._ascents % INTERVAL or not _readable(multipliers.table):
            return
        flags, arrived = self.flags(multipliers), self._flags
        if flags.device.type == "cpu":
            arrived = flags
        else:
            pinned = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
            self._flags = pinned.copy_(flags, non_blocking=True)
        # tolist on host memory, not item(): no device is asked
        if arrived is not None and self.worth_reading(arrived.tolist()):
            self.look(multipliers, labelled)

    def look(self, multipliers: Multipliers, labelled: Labelled) -> None:
        """Looks now, unless the table cannot be read."""
        if _readable(multipliers.table):
            self.read(multipliers, labelled)

    def forget(self) -> None:
        """Starts anew, after a state has been loaded."""
        self._ascents, self._flags = 0, None
        self._said.clear()

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles start without a background copy under way."""
        return {"_ascents": self._ascents, "_flags": None, "_said": set(self._said)}


def _readable(table: Tensor) -> bool:
    # fake tensors and those of other tracers are subclasses
    return type(table) is Tensor and not table.is_meta and not torch.compiler.is_compiling()
