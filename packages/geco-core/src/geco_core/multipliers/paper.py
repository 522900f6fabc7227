r"""Algorithm 1 of the paper, exactly as printed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from geco_core.multipliers.arithmetic import Arithmetic, Number
from geco_core.multipliers.update import COMMON_ROWS, ColumnUpdate, Observation
from geco_core.validation import check_number

__all__ = ["PaperUpdate"]


@dataclass(frozen=True, slots=True)
class PaperUpdate(ColumnUpdate):
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
        # numbers of numpy become Python's own
        object.__setattr__(self, "rate", check_number("rate", self.rate, 0.0, math.inf))
        object.__setattr__(self, "decay", check_number("decay", self.decay, 0.0, 1.0))

    @property
    def rows(self) -> tuple[str, ...]:
        """The common rows, and the logarithm, which neither overflows nor ends at 0."""
        return (*COMMON_ROWS, "log_multiplier")

    @property
    def relative(self) -> bool:
        """False: Algorithm 1 knows no scale."""
        return False

    @property
    def straight_through(self) -> bool:
        """True, as printed."""
        return True

    def weigh(
        self, m: Arithmetic, column: Mapping[str, Number], seen: Observation
    ) -> tuple[Number, Number]:
        r""":math:`\lambda`, and nothing is divided."""
        return column["multiplier"], 0.0

    def move(
        self, m: Arithmetic, column: Mapping[str, Number], seen: Observation
    ) -> Mapping[str, Number]:
        """One line of Algorithm 1."""
        moved = self.decay * column["moving_average"] + (1.0 - self.decay) * seen.violation
        average = m.where(column["ascents"] == 0, seen.violation, moved)
        log_multiplier = column["log_multiplier"] + self.rate * average
        return {
            "multiplier": m.exp(log_multiplier),
            "log_multiplier": log_multiplier,
            "moving_average": average,
            "ascents": column["ascents"] + 1.0,
        }
