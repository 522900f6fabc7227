"""The multipliers' table: its memory on the device, its ascent, its checkpoint."""

from typing import Any

import torch
from torch import Tensor, nn

from geco_core.updates import MultiplierUpdate

__all__ = ["Multipliers"]


class Multipliers(nn.Module):
    r"""Log-multipliers, moving averages and counts of :math:`L` constraints.

    All of it is buffers, never parameters: no optimizer moves a multiplier.

    Args:
        update: The rule.
        scales: The unit of every violation.
    """

    table: Tensor
    weights: Tensor
    scales: Tensor

    def __init__(self, update: MultiplierUpdate, scales: tuple[float, ...]) -> None:
        super().__init__()
        self.update = update
        table = torch.zeros(len(update.rows), len(scales))
        table[0] = update.initial_log_multiplier()
        self.register_buffer("table", table)
        self.register_buffer("scales", torch.tensor(scales), persistent=False)
        self.register_buffer("weights", table.new_empty(0), persistent=False)
        self.refresh()

    def refresh(self) -> None:
        """Recomputes what follows from the table and the scales."""
        weights = self.update.weights(self.table)
        if self.update.relative:
            weights = torch.cat([weights[:1], weights[1:] / self.scales])
        # a new tensor: the old one may be saved for a backward that is still to come
        self.weights = weights

    def rescale(self, scales: tuple[float, ...]) -> None:
        """Takes new units, for tolerances that follow a schedule."""
        self.scales = torch.tensor(scales, dtype=self.table.dtype, device=self.table.device)
        self.refresh()

    def in_rule_units(self, violation: Tensor) -> Tensor:
        """Violations in the units in which the rule and the moving averages are."""
        return violation / self.scales if self.update.relative else violation

    @torch.no_grad()
    def ascend(self, violation: Tensor) -> None:
        """Moves every multiplier whose violation is finite, and counts the others.

        Args:
            violation: The mean violation of every constraint in its own units, :math:`(L,)`.
        """
        violation = violation.detach().to(self.table.dtype)
        finite = violation.isfinite()
        usable = torch.where(finite, self.in_rule_units(violation), 0.0)
        moved = self.update.advance(self.table, usable)
        kept = self.table.clone()
        kept[3] += 1
        self.table.copy_(torch.where(finite, moved, kept))
        self.refresh()

    @property
    def multiplier(self) -> Tensor:
        r"""The multipliers :math:`\lambda` of the violations in their own units, :math:`(L,)`."""
        value = self.table[0].exp()
        return value / self.scales if self.update.relative else value

    @property
    def relative_multiplier(self) -> Tensor:
        r"""The multipliers times the scales, :math:`(L,)`."""
        value = self.table[0].exp()
        return value if self.update.relative else value * self.scales

    @property
    def moving_average(self) -> Tensor:
        """The moving averages of the violations in their own units, :math:`(L,)`."""
        value = torch.where(self.table[2] > 0, self.table[1], torch.nan)
        return value * self.scales if self.update.relative else value

    def _apply(self, fn: Any, recurse: bool = True) -> "Multipliers":
        before = self.table
        super()._apply(fn, recurse)
        if self.table.dtype in (torch.float16, torch.bfloat16):
            # half precision would lose ascents smaller than one part in a thousand
            self.table = before.to(self.table.device)
            self.scales = self.scales.to(before.dtype)
            self.refresh()
        return self
