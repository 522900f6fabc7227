"""GECO as a contestant."""

from typing import Any

from torch import Tensor

from geco_core import GECO, ReconstructionError


class Geco:
    """A GECO objective, used as anybody would.

    Args:
        kappa: The tolerance.
        kl_unit: What the KL is multiplied by: 1/16 for a mean over 16 dimensions.
        change: A step and the tolerance from it on.
        settings: For the objective.
    """

    def __init__(
        self,
        kappa: float,
        *,
        kl_unit: float = 1.0,
        change: tuple[int, float] | None = None,
        **settings: Any,
    ) -> None:
        self.constraint = ReconstructionError(kappa)
        self.objective = GECO(self.constraint, **settings)
        self.kl_unit, self.change, self.steps = kl_unit, change, 0

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The objective's loss."""
        return self.objective(kl * self.kl_unit, x, reconstruction)

    def step(self) -> None:
        """The ascent."""
        self.objective.step()
        self.steps += 1
        if self.change is not None and self.steps == self.change[0]:
            self.constraint.kappa = self.change[1]

    def multiplier(self) -> float:
        """The relative multiplier."""
        return float(self.objective.info.relative_multiplier)  # type: ignore[arg-type]
