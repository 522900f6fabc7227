"""Saying that ascents are skipped, without waiting for the device."""

import logging

from torch import Tensor

from geco_core.multipliers.state import Multipliers
from geco_core.multipliers.watch import Labelled, Watch

__all__ = ["SkipWatch"]

logger = logging.getLogger(__name__)


class SkipWatch(Watch):
    """Warns once of each multiplier whose ascents are skipped for values that are not finite."""

    def flags(self, multipliers: Multipliers) -> Tensor:
        """How many ascents of each were skipped."""
        return multipliers.skipped()

    def read(self, multipliers: Multipliers, labelled: Labelled) -> None:
        """Reads the counts now, and warns of those that have not been warned of."""
        counts = multipliers.skipped().tolist()
        if not any(counts):
            return
        ascents = multipliers.table[2].tolist()
        for (name, _), skipped, made in zip(labelled.items(), counts, ascents, strict=True):
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
