r"""Algorithm 1 of the paper, exactly as printed."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geco_core.multipliers.update import MultiplierUpdate
from geco_core.validation import check_number

__all__ = ["PaperUpdate"]


@dataclass(frozen=True, slots=True)
class PaperUpdate(MultiplierUpdate):
    r"""Algorithm 1, exactly as printed.

    .. math::

        \bar C^t = \alpha \bar C^{t-1} + (1 - \alpha) \hat C^t, \quad \bar C^0 = \hat C^0,
        \qquad \lambda \leftarrow \lambda \exp(\eta \bar C^t),

    with :math:`\hat C^t` the mean of the violation over the batch and :math:`\lambda = 1` at the
    start. The loss is :math:`KL + \lambda^\top C^t`, where :math:`C^t` has the value of the
    moving average and the gradient of the batch. Nothing is clipped, bounded or rescaled, so
    the rate must fit the units of the constraint: :math:`\eta` times the violation is the
    change of :math:`\ln \lambda` in one step.

    Args:
        rate: The step size :math:`\eta`.
        decay: The decay :math:`\alpha` of the moving average.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If `rate` is negative or not finite, or `decay` not in [0, 1).
    """

    rate: float = 1e-2
    decay: float = 0.99

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_number("rate", self.rate, 0.0, math.inf)
        check_number("decay", self.decay, 0.0, 1.0)

    @property
    def relative(self) -> bool:
        """False: Algorithm 1 knows no scale."""
        return False

    @property
    def straight_through(self) -> bool:
        """True, as printed."""
        return True

    def weights(self, table: Tensor, violation: Tensor) -> tuple[Tensor, Tensor]:
        r"""1 and :math:`\lambda`."""
        return table.new_ones(()), table[0].exp()

    def average(self, table: Tensor, violation: Tensor) -> Tensor:
        r"""The average :math:`\bar C^t`; its first value is the first violation."""
        moved = self.decay * table[1] + (1.0 - self.decay) * violation
        return torch.where(table[2] == 0, violation, moved)

    def advance(self, table: Tensor, violation: Tensor) -> Tensor:
        """One line of Algorithm 1."""
        average = self.average(table, violation)
        return torch.stack([table[0] + self.rate * average, average, table[2] + 1, table[3]])

    def saturated(self, table: Tensor) -> Tensor:
        """Nowhere: there is no bound."""
        return torch.zeros_like(table[0], dtype=torch.bool)
