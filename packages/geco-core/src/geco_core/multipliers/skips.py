"""Saying that ascents are skipped, without waiting for the device."""

import logging
from typing import Any

import torch
from torch import Tensor

from geco_core.multipliers.state import Multipliers

__all__ = ["SkipWatch"]

logger = logging.getLogger(__name__)

#: How many ascents lie between two looks.
INTERVAL = 64


class SkipWatch:
    """Warns once of each multiplier whose ascents are skipped for values that are not finite.

    Every so many ascents the counts are copied to the host in the background, and read one
    interval later. Nothing is read while a compiler traces.
    """

    def __init__(self) -> None:
        self._ascents = 0
        self._counts: Tensor | None = None
        self._said: set[str] = set()

    def tick(self, multipliers: Multipliers, names: Any) -> None:
        """Counts an ascent, and looks when it is time to."""
        self._ascents += 1
        if self._ascents % INTERVAL or not _readable(multipliers.table):
            return
        counts, arrived = multipliers.skipped(), self._counts
        if counts.device.type == "cpu":
            arrived = counts
        else:
            pinned = torch.empty(counts.shape, dtype=counts.dtype, pin_memory=True)
            self._counts = pinned.copy_(counts, non_blocking=True)
        # tolist on host memory, not item(): no device is asked
        if arrived is not None and any(arrived.tolist()):
            self.look(multipliers, names)

    def look(self, multipliers: Multipliers, names: Any) -> None:
        """Reads the counts now, and warns of those that have not been warned of."""
        if not _readable(multipliers.table):
            return
        counts = multipliers.skipped().tolist()
        if not any(counts):
            return
        ascents = multipliers.table[2].tolist()
        for (name, _), skipped, made in zip(names.items(), counts, ascents, strict=True):
            if skipped and name not in self._said:
                self._said.add(name)
                logger.warning(
                    "constraint %r: %d of %d ascents were skipped because its violation, or the "
                    "KL or other loss beside it, was not finite; the multiplier stays as it was "
                    "at those steps: look for overflow or division by zero in the model",
                    name,
                    skipped,
                    skipped + made,
                )

    def forget(self) -> None:
        """Starts anew, after a state has been loaded."""
        self._ascents, self._counts = 0, None
        self._said.clear()

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles start without a background copy under way."""
        return {"_ascents": self._ascents, "_counts": None, "_said": set(self._said)}


def _readable(table: Tensor) -> bool:
    # fake tensors and those of other tracers are subclasses
    return type(table) is Tensor and not table.is_meta and not torch.compiler.is_compiling()
