"""Who takes part in `benchmarks/linear_gaussian.py`: a loss and an ascent each."""

import math
from collections.abc import Callable, Sequence

from contestants import Contestant, Cooper, Geco, HumanCompatible, Relative
from torch import Tensor

from geco_core import PaperUpdate, RobustUpdate
from geco_theory import linear_vae_optimum
from linear_gaussian_parts.cells import Cell

PAPER_RATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
ASCENT_RATES = (1e-3, 1e-2, 1e-1)


class Oracle(Relative):
    """The plain Lagrangian with the exact multiplier, divided by a constant.

    Args:
        cell: The problem.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell.kappa)
        self.relative = linear_vae_optimum(cell.spectrum, cell.kappa).relative_multiplier

    def loss(self, kl: Tensor, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The Lagrangian, divided."""
        return (kl.mean() + self.relative * self.violation(x, reconstruction)) / (
            1 + self.relative
        )

    def step(self) -> None:
        """Nothing moves."""

    def multiplier(self) -> float:
        """The relative multiplier."""
        return self.relative


def rescaled_oracle(cell: Cell) -> Geco:
    """The exact multiplier in our loss: no ascent."""
    relative = linear_vae_optimum(cell.spectrum, cell.kappa).relative_multiplier
    return Geco(cell.kappa, update=RobustUpdate(rate=0.0, gain=0.0, initial=relative))


# name -> the settings to try, and how one is built
CONTESTANTS: dict[str, tuple[Sequence[float], Callable[[Cell, float], Contestant]]] = {
    "ours": ((math.nan,), lambda cell, _: Geco(cell.kappa)),
    "oracle": ((math.nan,), lambda cell, _: Oracle(cell)),
    "rescaled-oracle": ((math.nan,), lambda cell, _: rescaled_oracle(cell)),
    "paper": (PAPER_RATES, lambda cell, rate: Geco(cell.kappa, update=PaperUpdate(rate=rate))),
    "cooper": (ASCENT_RATES, lambda cell, rate: Cooper(cell.kappa, rate)),
    "humancompatible": (ASCENT_RATES, lambda cell, rate: HumanCompatible(cell.kappa, rate)),
}
