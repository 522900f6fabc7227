"""The history of a run: a bounded number of records, kept on the device until the end.

Which steps are recorded is known before the first one: every step of a short run; of a long one
half of the records evenly spaced and half evenly spaced in the logarithm of the step, so that
both the start (where the multiplier moves by decades) and the whole stay visible. The first and
the last step are always among them. A record holds one step's own numbers, no averages.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["FIELDS", "LIMIT", "History", "record_steps"]

LIMIT = 1000
FIELDS = (
    "loss",
    "kl",
    "squared_error",
    "constraint",
    "moving_average",
    "multiplier",
    "relative_multiplier",
    "beta",
    "feasible",
    "saturated",
    "skipped",
)


def record_steps(steps: int, limit: int = LIMIT) -> NDArray[np.int64]:
    """The steps, counted from 1, that are recorded in a run of `steps` steps; at most `limit`."""
    if steps <= limit:
        return np.arange(1, steps + 1, dtype=np.int64)
    half = limit // 2
    even = np.linspace(1, steps, half)
    log = np.geomspace(1, steps, limit - half)
    return np.unique(np.rint(np.concatenate([even, log])).astype(np.int64))


class History:
    """Records of some steps as one tensor on the device; nothing is read by the host.

    Args:
        steps: Steps of the whole run.
        device: Where the numbers are made.
        draw_steps: Recurrent steps of the model whose KL is recorded too (0: none).
        knots: Knots of a range of tolerances whose multipliers are recorded too (0: none).
    """

    def __init__(
        self, steps: int, device: torch.device, draw_steps: int = 0, knots: int = 0
    ) -> None:
        self.steps = record_steps(steps)
        self._due = {int(step): row for row, step in enumerate(self.steps)}
        rows = len(self.steps)
        self.values = torch.full((rows, len(FIELDS)), math.nan, device=device)
        self.draw_values = (
            torch.full((rows, draw_steps), math.nan, device=device) if draw_steps else None
        )
        self.knot_values = torch.full((rows, knots), math.nan, device=device) if knots else None

    def row(self, step: int) -> int | None:
        """The row of a step (counted from 1), or None if it is not recorded."""
        return self._due.get(step)

    def record(
        self,
        row: int,
        values: Sequence[Tensor | None],
        kl_steps: Tensor | None,
        at_knots: Tensor | None = None,
    ) -> None:
        """Write one row; None becomes NaN."""
        blank = self.values.new_full((), math.nan)
        self.values[row] = torch.stack(
            [blank if v is None else v.detach().to(self.values.dtype) for v in values]
        )
        if self.draw_values is not None and kl_steps is not None:
            self.draw_values[row] = kl_steps.detach().to(self.values.dtype)
        if self.knot_values is not None and at_knots is not None:
            self.knot_values[row] = at_knots.detach().to(self.values.dtype)

    def load(
        self, values: Tensor, draw_values: Tensor | None, knot_values: Tensor | None = None
    ) -> None:
        """Take over the records of a checkpoint.

        Raises:
            ValueError: if they are of a run of another length.
        """
        if values.shape != self.values.shape:
            raise ValueError(
                f"the history has shape {tuple(values.shape)}, expected {tuple(self.values.shape)}"
            )
        self.values.copy_(values)
        if self.draw_values is not None and draw_values is not None:
            self.draw_values.copy_(draw_values)
        if self.knot_values is not None and knot_values is not None:
            self.knot_values.copy_(knot_values)
