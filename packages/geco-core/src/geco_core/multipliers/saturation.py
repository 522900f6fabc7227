"""Saying that a constraint cannot be reached, without waiting for the device."""

import logging
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from geco_core.constraints.base import Constraint
from geco_core.multipliers.state import Multipliers

__all__ = ["SaturationWatch"]

logger = logging.getLogger(__name__)

#: How many ascents lie between two looks.
INTERVAL = 64


class SaturationWatch:
    """Warns once of each multiplier that is stuck at its upper bound.

    Every so many ascents the flags are copied to the host in the background, and read when the
    copy has long arrived, one interval later. Nothing is read while a compiler traces.
    """

    def __init__(self) -> None:
        self._ascents = 0
        self._flags: Tensor | None = None
        self._said: set[str] = set()

    def tick(self, multipliers: Multipliers, constraints: nn.ModuleDict) -> None:
        """Counts an ascent, and looks when it is time to."""
        self._ascents += 1
        if self._ascents % INTERVAL or not _readable(multipliers.table):
            return
        arrived = self._flags
        flags = multipliers.saturated()
        if flags.device.type == "cpu":
            arrived = flags
        else:
            pinned = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True)
            self._flags = pinned.copy_(flags, non_blocking=True)
        # tolist on host memory, not item(): no device is asked
        if arrived is not None and (any(arrived.tolist()) or self._said):
            self.look(multipliers, constraints)

    def look(self, multipliers: Multipliers, constraints: nn.ModuleDict) -> None:
        """Reads the flags now, and warns of those that have not been warned of."""
        if not _readable(multipliers.table):
            return
        saturated = multipliers.saturated().tolist()
        named = cast("dict[str, Constraint]", dict(constraints.items()))
        scales = [constraint.scale for constraint in named.values()]
        for i, (name, constraint) in enumerate(named.items()):
            if not saturated[i]:
                self._said.discard(name)
            elif name not in self._said:
                self._said.add(name)
                _warn(name, constraint, i, multipliers, scales)

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


def _warn(
    name: str,
    constraint: Constraint,
    column: int,
    multipliers: Multipliers,
    scales: Sequence[float],
) -> None:
    average = multipliers.moving_average(scales)[column].item()
    multiplier = multipliers.multiplier(scales)[column].item()
    logger.warning(
        "constraint %r is not reached: the moving average of its violation is %.4g, %+.1f%% of "
        "its scale %.4g (kappa %s), and its multiplier is saturated at the upper bound %.4g; "
        "%straining goes on at the best trade-off: train longer, loosen kappa or enlarge the "
        "model",
        name,
        average,
        100 * average / scales[column],
        scales[column],
        constraint.kappa,
        multiplier,
        _outlook(column, multipliers, scales),
    )


def _outlook(column: int, multipliers: Multipliers, scales: Sequence[float]) -> str:
    """The smallest violation so far and about the smallest there is, where the rule knows them."""
    outlook = multipliers.update.outlook(multipliers.table)
    if outlook is None:
        return ""
    own = [multipliers.in_own_units(value, scales)[column].item() for value in outlook[:2]]
    share = outlook.share[column].item()
    said = f"the smallest so far is {own[0]:.4g}; "
    if share == share:
        said += (
            f"with the model as it is the error is at most {share:.1%} smaller at any multiplier, "
            f"a violation of {own[1]:.4g}; "
        )
    return said
