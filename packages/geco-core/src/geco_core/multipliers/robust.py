r"""The default rule: PI control of the multiplier with the model's own response as its unit.

Of a batch it sees the relative violation :math:`c_t = \hat C^t / s` and the mean loss :math:`K_t`
(the KL). With :math:`\bar c`, :math:`\tilde c`, :math:`\hat c` averages of :math:`c_t` (over 100
ascents, fast, and as short as the noise allows), :math:`\bar K` that of :math:`K_t`,

.. math::

    w &= \bar K / 2.5, \qquad A = \max(1, \lambda / w) \\
    I &\leftarrow I \oplus k_i \operatorname{clip}(A \operatorname{asinh} \tilde c, -2, t), \qquad
    \lambda = \min(I \oplus k_p \operatorname{asinh} \hat c,\; \lambda_{\max}) \\
    \lambda_{\max} &= \min(d \min(0.75 + 5 \max(\bar c, 0),\; 4),\; \max(50 \bar K, 10)) \\
    \text{loss} &= \frac{KL + \sum_l \lambda_l c_l}
         {1 + \sum_l \lambda_l \max(1 + \tilde c_l, 1, c_l)}

where :math:`\lambda` is the relative multiplier (the multiplier times :math:`s`), :math:`d` the
number of elements per example, and :math:`\lambda \oplus \delta` multiplies :math:`\lambda` by
:math:`e^\delta` above :math:`w` and adds :math:`w \delta` below, so that 0 can be reached.
:math:`I` and :math:`\lambda` start at :math:`d / 2`, the Gaussian likelihood with
:math:`\sigma = \kappa`.

Along the trade-off curve :math:`\lambda = -dKL/dc`, so that :math:`-dc / d\ln\lambda =
(dKL / d\ln\lambda) / \lambda \approx w / \lambda = 1 / A`: the share of the error that still
answers to the multiplier. Dividing by it makes the loop alike everywhere, and what was wound up
comes down again. At a fixed point :math:`c = 0`, so that no part moves the optimum of the
constrained problem. All of it is this project's choice [ours]; the reason for each part, and the
measurement that it rests on, is told in `docs/controller.md`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from geco_core.multipliers.arithmetic import Arithmetic, Number
from geco_core.multipliers.ceiling import TINY, Sizes, highest_multiplier
from geco_core.multipliers.outlook import Outlook
from geco_core.multipliers.update import COMMON_ROWS, ColumnUpdate, MultiplierUpdate, Observation
from geco_core.validation import check_number, whole

__all__ = ["RobustUpdate"]

# dKL/dln(lambda) in units of the KL itself
RESPONSE = 2.5
# what the integral sees of the violation times its inverse gain: a fall is quicker than a rise
# while the constraint is clearly violated, because a model that is still learning has a large
# error at any multiplier; near 0 both are alike, so that noise is not rectified
LARGEST_FALL, LARGEST_RISE, LEARNING_RISE = 2.0, 2.0, 1.0
LARGEST_GAIN = 1e3
# learning has come to rest where over so many ascents the error has not fallen by this share
WINDOW, STANDSTILL, PATIENCE = 400.0, 0.01, 200.0
# the noise that may remain in the proportional average and in the integral's input
PROPORTIONAL_NOISE, INTEGRAL_NOISE = 0.01, 0.5
FASTEST, SLOWEST = 0.1, 0.005
# the own gain of constraints whose response is not known: it grows while a violation persists,
# and shrinks where it changes its sign
PERSISTENCE, REVERSAL, LEAST_OWN_GAIN, LARGEST_OWN_GAIN = 1.005, 0.86, 0.03, 10.0
# ascents over which an unknown scale and the size of the loss are taken; later violations that are
# larger enlarge the scale by at most so much per ascent
SETTLING = 10.0
LARGER, GROWTH = 0.1, 0.05
# a loss that is large where nothing else tells what is: it divides the sum of the weights
LARGE_LOSS = 100.0
AT_CEILING = 0.99


@dataclass(frozen=True, slots=True)
class RobustUpdate(ColumnUpdate):
    r"""The default rule, made to need no tuning: see :mod:`geco_core.multipliers.robust`.

    What settings make of it:

    - `rate=0, gain=0, initial=l, rescale=False`: a VAE of fixed weight, :math:`KL + l\,C / s`,
      where `initial` is 1 unless given;
    - `gain=0`: integral control only;
    - `rescale=False`: the plain Lagrangian :math:`KL + \lambda^\top C` as loss.

    Args:
        rate: The integral gain :math:`k_i` per ascent.
        gain: The proportional gain :math:`k_p`.
        decay: The decay of the moving average that `info` shows.
        bounds: The lowest and the highest relative multiplier :math:`\lambda s`; None for 0 and
            the ceiling of the module's formulas.
        initial: The relative multiplier at the start; None for :math:`d / 2`, or, where a
            constraint does not know the number of its elements, for the size of the first loss
            if it is violated at first, else 0.
        rescale: Whether the loss is divided by the sum of its weights.
        total_steps: The ascents of the whole run, where they are known: a tolerance that is still
            missed in its second half is then worth a higher multiplier.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is outside of its range.
    """

    rate: float = 0.02
    gain: float = 1.0
    decay: float = 0.99
    bounds: tuple[float, float] | None = None
    initial: float | None = None
    rescale: bool = True
    total_steps: int | None = None

    def __post_init__(self) -> None:
        """Checks the arguments."""
        # numbers of numpy become Python's own
        own: dict[str, object] = {"rescale": bool(self.rescale)}
        for name, end in (("rate", math.inf), ("gain", math.inf), ("decay", 1.0)):
            own[name] = check_number(name, getattr(self, name), 0.0, end)
        lowest, highest = (0.0, math.inf) if self.bounds is None else self.bounds
        if self.bounds is not None:
            lowest = check_number("bounds[0]", lowest, 0.0, math.inf)
            highest = check_number("bounds[1]", highest, 0.0, math.inf)
            if not lowest < highest:
                raise ValueError(f"`bounds` must be 0 <= lowest < highest, got {self.bounds}")
            own["bounds"] = (lowest, highest)
        if self.total_steps is not None:
            own["total_steps"] = whole("total_steps", self.total_steps)
        if self.initial is not None:
            own["initial"] = check_number("initial", self.initial, 0.0, math.inf)
            if not lowest <= self.initial <= highest:
                raise ValueError(f"`initial` must be in {self.bounds}, got {self.initial}")
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @property
    def rows(self) -> tuple[str, ...]:
        """The common rows and the rule's own; averages and multipliers in the declared scale."""
        return (
            *COMMON_ROWS,
            "steady_multiplier",
            "fast_average",
            "proportional_average",
            "last_violation",
            "window",
            "window_average",
            "resting",
            "least_average",
            "noise",
            "loss_average",
            "first_loss",
            "unit",
            "own_gain",
            "lift",
            "standstill",
            "elements",
        )

    @property
    def relative(self) -> bool:
        """True: nothing depends on the units of the data."""
        return True

    def table(self, constraints: int) -> Tensor:
        """Zeros; an own gain of 1, and no steady multiplier yet, which -1 stands for."""
        table = MultiplierUpdate.table(self, constraints)
        rows = self.rows
        start = self._start
        if start is not None:
            table[0] = start
        table[rows.index("steady_multiplier")] = -1.0
        table[rows.index("own_gain")] = 1.0
        return table

    def weigh(
        self, m: Arithmetic, column: Mapping[str, Number], seen: Observation
    ) -> tuple[Number, Number]:
        """The relative multiplier, and what it adds to the divisor."""
        unit = self._unit(m, self._next_unit(m, column, seen))
        multiplier = self._multiplier(m, column, seen, unit)
        if not self.rescale:
            return multiplier, 0.0
        # the batch's own violation counts where it exceeds the average by 1: at the first step,
        # which would otherwise fill Adam's second moment for thousands of steps, and at jumps;
        # not in its usual noise, which must not be correlated with the weight of its gradient
        average = m.maximum(column["fast_average"] / unit, 0.0) + 1.0
        size = m.maximum(average, seen.violation / unit)
        # the multiplier of a constraint without elements is as large as the loss, which may have
        # any unit: where that is large, a multiplier that comes late must not divide it so much
        # that nothing stands beside Adam's second moments of before
        loss = m.maximum(column["first_loss"] / LARGE_LOSS, 1.0)
        loss = m.where(seen.elements > 0, 1.0, loss)
        return multiplier, multiplier * unit * size / loss

    def move(
        self, m: Arithmetic, column: Mapping[str, Number], seen: Observation
    ) -> Mapping[str, Number]:
        """One step of the controller."""
        known = seen.elements > 0  # not where it is NaN
        found = self._next_unit(m, column, seen)
        unit = self._unit(m, found)
        c = seen.violation / unit
        ascents = column["ascents"] + 1.0
        whole = 1.0 / ascents  # averages are plain means until they remember less than all

        before = column["fast_average"] / unit
        # half the mean square of differences: the noise without the motion
        surprise = (c - column["last_violation"] / unit) / (1.0 + m.abs(before))
        remembered = m.maximum(1.0 / m.maximum(ascents - 1.0, 1.0), 0.01)
        noise = column["noise"] + m.where(ascents > 1.0, remembered, 0.0) * (
            0.5 * surprise * surprise - column["noise"]
        )
        size = m.abs(seen.loss) + 0.0 * c
        loss = column["loss_average"] + m.maximum(whole, 0.01) * (size - column["loss_average"])
        first = m.where(
            ascents <= SETTLING, m.maximum(column["first_loss"], size), column["first_loss"]
        )

        # the unit of the multiplier, and the inverse of the share of the error that answers to it
        response = loss / RESPONSE
        w = m.maximum(m.where(known, response, m.maximum(response, first)), TINY)
        now = self._multiplier(m, column, seen, unit) * unit
        steady = column["steady_multiplier"] * unit
        steady = m.where(steady < 0, now, steady)
        inverse = m.clip(now / w, 1.0, LARGEST_GAIN)
        own = m.where(known, 1.0, column["own_gain"])

        # averages as long as the noise asks for; a gain that asks for longer ones gains nothing
        share = INTEGRAL_NOISE / m.maximum(m.sqrt(noise) * inverse, TINY)
        quiet = m.minimum(own, m.maximum(share, 1.0))
        loud = noise * inverse * inverse * quiet * quiet
        quick = m.clip(2 * INTEGRAL_NOISE**2 / (loud + INTEGRAL_NOISE**2), SLOWEST, FASTEST)
        prompt = m.clip(2 * PROPORTIONAL_NOISE**2 / (noise + PROPORTIONAL_NOISE**2), 0.002, 1.0)
        fast = before + m.maximum(quick, whole) * (c - before)
        prop = column["proportional_average"] / unit
        prop = prop + m.maximum(prompt, whole) * (c - prop)
        slow = column["moving_average"] / unit
        slow = slow + m.maximum(whole, 1.0 - self.decay) * (c - slow)

        # the integral, slower where the averages are longer
        clearly = m.maximum(slow - 2.0 * m.sqrt(0.005 * noise), 0.0)
        rise = LEARNING_RISE + (LARGEST_RISE - LEARNING_RISE) / (1.0 + inverse * clearly)
        push = m.maximum(m.minimum(inverse * quiet * m.asinh(fast), rise), -LARGEST_FALL)
        violated = clearly > STANDSTILL
        full = column["window"] + 1.0 >= WINDOW
        begun = column["window_average"] / unit
        unsure = 0.2 * m.sqrt(noise)  # two standard errors of a difference of averages
        fall = (begun - slow) / (1.0 + m.abs(slow))
        still = (ascents > WINDOW) & (fall < STANDSTILL + unsure)
        resting = m.where(full, m.where(still, 1.0, 0.0), column["resting"])
        rests = violated & (resting > 0)
        sizes = Sizes(seen.elements, first, loss, w)
        late = (
            0.0
            if self.total_steps is None
            else m.clip(2.0 * ascents / self.total_steps - 1.0, 0.0, 1.0)
        )
        ceiling, lift = highest_multiplier(m, sizes, slow, column["lift"], rests, late)
        if self.bounds is not None:
            ceiling = self.bounds[1] * unit
        elif self.rate == 0:  # a fixed multiplier stays what it is
            ceiling = math.inf * w
        steady = self._step(m, steady, self.rate * (quick / FASTEST) * push, w)
        steady = m.minimum(steady, ceiling)
        multiplier = self._step(m, steady, self.gain * own * m.asinh(prop), w)
        multiplier = m.minimum(multiplier, ceiling)
        lowest = 0.0 if self.bounds is None else self.bounds[0]
        multiplier = m.maximum(multiplier / unit, lowest)
        steady = m.maximum(steady / unit, lowest)

        least = m.minimum(column["least_average"] / unit, slow)
        held = rests & (multiplier * unit >= AT_CEILING * ceiling)
        # signs by comparisons: products of small numbers vanish
        reversed_ = (m.minimum(fast, before) < 0) & (m.maximum(fast, before) > 0)
        persists = (m.minimum(fast, slow) > 0) | (m.maximum(fast, slow) < 0)
        persists = persists & (m.abs(fast) > 0.7 * m.abs(slow))
        persists = persists & (m.abs(fast) > m.sqrt(2.0 * quick * noise))
        # a slack constraint at its lowest multiplier tells nothing of the gain
        free = (fast > 0) | (multiplier > lowest)
        persists = persists & free
        own_gain = column["own_gain"]
        grown = m.where(persists, PERSISTENCE * own_gain, own_gain)
        own_gain = m.where(reversed_, REVERSAL * own_gain, grown)
        return {
            "multiplier": multiplier,
            "moving_average": slow * unit,
            "ascents": ascents,
            "steady_multiplier": steady,
            "fast_average": fast * unit,
            "proportional_average": prop * unit,
            "last_violation": seen.violation,
            "window": m.where(full, 0.0, column["window"] + 1.0),
            "window_average": m.where(full, slow, begun) * unit,
            "resting": resting,
            "least_average": m.where(ascents <= 100, slow, least) * unit,
            "noise": noise,
            "loss_average": loss,
            "first_loss": first,
            "unit": found,
            "own_gain": m.clip(own_gain, LEAST_OWN_GAIN, LARGEST_OWN_GAIN),
            "lift": lift,
            "standstill": m.where(held, column["standstill"] + 1.0, 0.0),
            "elements": m.where(known, seen.elements + 0.0 * c, 0.0),
        }

    def saturated(self, table: Tensor) -> Tensor:
        """Which multipliers are at their ceiling while a violation no longer falls."""
        return self.columns(table)["standstill"] > PATIENCE

    def outlook(self, table: Tensor) -> Outlook:
        """By :math:`1 / A`, for constraints that know their elements."""
        rows = self.columns(table)
        share = (rows["loss_average"] / RESPONSE / rows["multiplier"]).clamp(max=1.0)
        share = share.masked_fill(rows["elements"] <= 0, math.nan)
        least, error = rows["least_average"], 1.0 + rows["moving_average"]
        return Outlook(least, error * (1.0 - share) - 1.0, share)

    @property
    def _start(self) -> float | None:
        """The relative multiplier at the start where it does not depend on the first batch."""
        fixed = self.rate == 0 and self.gain == 0
        return 1.0 if fixed and self.initial is None else self.initial

    def _multiplier(
        self, m: Arithmetic, column: Mapping[str, Number], seen: Observation, unit: Number
    ) -> Number:
        """The multiplier in use, in the declared scale; before the first ascent, the start."""
        now = column["multiplier"]
        if self._start is not None:
            return now
        size = m.abs(seen.loss) + 0.0 * seen.violation
        size = m.where(size > 0, size, 1.0)
        free = m.where(seen.violation > 0, size, 0.0) / unit
        start = m.where(seen.elements > 0, seen.elements / 2.0, free)
        if self.bounds is not None:
            start = m.clip(start, *self.bounds)
        return m.where(column["ascents"] > 0, now, start)

    @staticmethod
    def _step(m: Arithmetic, multiplier: Number, change: Number, w: Number) -> Number:
        """A step on the scale that is linear below w, down to 0, and logarithmic above."""
        ratio = multiplier / w
        # both branches have value and slope 1 at w; no digits are lost near 0
        place = m.where(ratio > 1.0, 1.0 + m.log(m.maximum(ratio, 1.0)), ratio) + change
        return w * m.where(
            place > 1.0, m.exp(m.clip(place - 1.0, 0.0, 80.0)), m.maximum(place, 0.0)
        )

    @staticmethod
    def _next_unit(m: Arithmetic, column: Mapping[str, Number], seen: Observation) -> Number:
        """The size of the violations where not even a scale is known, else 1.

        The mean of the first ones, of which some may be near 0: it grows with larger ones.
        """
        unit, ascents = column["unit"], column["ascents"] + 1.0
        size = m.abs(seen.violation)
        mean = unit + (size - unit) / ascents
        larger = m.minimum(LARGER * m.maximum(size - unit, 0.0), GROWTH * unit)
        found = m.where((ascents <= SETTLING) | (unit == 0), mean, unit + larger)
        return m.where(seen.elements == 0, found, 1.0)

    @staticmethod
    def _unit(m: Arithmetic, found: Number) -> Number:
        return m.where(found > 0, found, 1.0)


def chosen_update(update: object, total_steps: int | None) -> MultiplierUpdate:
    """The rule of an objective: the given one, or the default, told the length of the run.

    Raises:
        TypeError: If it is no rule, or knows no schedule although a length is given.
    """
    update = RobustUpdate() if update is None else update
    if not isinstance(update, MultiplierUpdate):
        raise TypeError(
            f"`update` must be a MultiplierUpdate such as PaperUpdate() or RobustUpdate(), "
            f"got {update!r}"
        )
    if total_steps is None:
        return update
    if not isinstance(update, RobustUpdate):
        raise TypeError(
            f"`total_steps` is for RobustUpdate, the default; {type(update).__name__} knows no "
            f"schedule"
        )
    return replace(update, total_steps=total_steps)
