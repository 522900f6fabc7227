r"""The default rule: bounded PI control of the log of the relative multiplier.

With :math:`c_t = \hat C^t / s` the relative violation of a batch, :math:`\bar c` its moving
average (decay 0.99) and :math:`\tilde c` a faster one (decay 0.9), both plain means while they
have seen few values:

.. math::

    I &\leftarrow \operatorname{clip}\bigl(I + k_i \operatorname{clip}(
         \operatorname{asinh} \tilde c, -1, \tfrac12),\; u_{\min}, u_{\max}\bigr) \\
    u &= \operatorname{clip}\bigl(I + k_p \operatorname{asinh} \bar c,\;
         u_{\min}, u_{\max}\bigr), \qquad \lambda = e^u / s \\
    \text{loss} &= \frac{KL + \sum_l e^{u_l} c_l}
         {1 + \sum_l e^{u_l} \max(1 + \tilde c_l, 1, c_l)}

At a fixed point :math:`c = 0`, so that neither the nonlinearity nor the proportional term nor
the denominator moves it: it is the optimum of the constrained problem. The reason for each part
is told in `docs/controller.md`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from geco_core.multipliers.arithmetic import Arithmetic, Number
from geco_core.multipliers.update import COMMON_ROWS, ColumnUpdate, MultiplierUpdate, Observation
from geco_core.validation import check_number

__all__ = ["RobustUpdate"]

# what the integral term sees of large errors: it rises slowly, because while a model is still
# learning the error is large at any multiplier, and what was raised too far takes long to come
# down again; near 0, where it matters, rise and fall are alike
LARGEST_RISE = 0.5
LARGEST_FALL = 1.0
# a bound counts as reached within this distance of its logarithm: float32 rounds it
AT_BOUND = 1e-3


@dataclass(frozen=True, slots=True)
class RobustUpdate(ColumnUpdate):
    r"""The default rule, made to need no tuning: see the module's formulas.

    What settings make of it:

    - `rate=0, gain=0, initial=l, rescale=False`: a VAE of fixed weight, :math:`KL + l\,C / s`;
    - `gain=0`: integral control only, Algorithm 1 in relative units, bounded;
    - `rescale=False`: the plain Lagrangian :math:`KL + \lambda^\top C` as loss.

    Args:
        rate: The integral gain :math:`k_i`: the change of the log-multiplier per step and unit of
            relative violation.
        gain: The proportional gain :math:`k_p`.
        decay: The decay of the moving average that the proportional term and `info` use.
        bounds: The lowest and the highest relative multiplier :math:`\lambda s`.
        initial: The relative multiplier at the start.
        rescale: Whether the loss is divided by the sum of its weights.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is outside of its range.
    """

    rate: float = 0.02
    gain: float = 1.0
    decay: float = 0.99
    bounds: tuple[float, float] = (1e-4, 1e5)
    initial: float = 1.0
    rescale: bool = True

    def __post_init__(self) -> None:
        """Checks the arguments."""
        check_number("rate", self.rate, 0.0, math.inf)
        check_number("gain", self.gain, 0.0, math.inf)
        check_number("decay", self.decay, 0.0, 1.0)
        lowest, highest = self.bounds
        check_number("bounds[0]", lowest, 0.0, math.inf)
        check_number("bounds[1]", highest, 0.0, math.inf)
        if not 0.0 < lowest < highest:
            raise ValueError(f"`bounds` must be 0 < lowest < highest, got {self.bounds}")
        check_number("initial", self.initial, 0.0, math.inf)
        if not lowest <= self.initial <= highest:
            raise ValueError(f"`initial` must be in {self.bounds}, got {self.initial}")

    @property
    def rows(self) -> tuple[str, ...]:
        """The common rows, the integral term, and the fast average."""
        return (*COMMON_ROWS, "integral", "fast_average")

    @property
    def relative(self) -> bool:
        """True: nothing depends on the units of the data."""
        return True

    def table(self, constraints: int) -> Tensor:
        """Zeros, except for the initial log-multiplier."""
        table = MultiplierUpdate.table(self, constraints)
        table[0] = table[4] = math.log(self.initial)
        return table

    def weigh(
        self, m: Arithmetic, column: Mapping[str, Number], seen: Observation
    ) -> tuple[Number, Number]:
        """The relative multiplier, and what it adds to the divisor."""
        multiplier = m.exp(column["log_multiplier"])
        if not self.rescale:
            return multiplier, 0.0
        # the batch's own violation counts where it exceeds the average by 1: at the first step,
        # which would otherwise fill Adam's second moment for thousands of steps, and at jumps;
        # not in its usual noise, which must not be correlated with the weight of its gradient
        size = m.maximum(m.maximum(column["fast_average"], 0.0) + 1.0, seen.violation)
        return multiplier, multiplier * size

    def move(
        self, m: Arithmetic, column: Mapping[str, Number], seen: Observation
    ) -> Mapping[str, Number]:
        """One step of the controller."""
        lowest, highest = math.log(self.bounds[0]), math.log(self.bounds[1])
        ascents = column["ascents"] + 1.0
        slow, fast = column["moving_average"], column["fast_average"]
        # plain means until the decay remembers less than all
        slow = slow + m.maximum(1.0 / ascents, 1.0 - self.decay) * (seen.violation - slow)
        fast = fast + m.maximum(1.0 / ascents, 0.1) * (seen.violation - fast)
        push = m.clip(m.asinh(fast), -LARGEST_FALL, LARGEST_RISE)
        integral = m.clip(column["integral"] + self.rate * push, lowest, highest)
        return {
            "log_multiplier": m.clip(integral + self.gain * m.asinh(slow), lowest, highest),
            "moving_average": slow,
            "ascents": ascents,
            "integral": integral,
            "fast_average": fast,
        }

    def saturated(self, table: Tensor) -> Tensor:
        """Which multipliers are at the upper bound while still violated."""
        columns = self.columns(table)
        at_bound = columns["log_multiplier"] >= math.log(self.bounds[1]) - AT_BOUND
        return at_bound & (columns["moving_average"] > 0.0)
