r"""How high the default rule lets a multiplier rise, so that it stays near the trade-off curve.

With :math:`d` the number of elements per example and :math:`\bar c` the average violation,

.. math:: \lambda_{\max} = \min(d \min(0.75 + 5 \max(\bar c, 0),\; 4),\; \max(50 \bar K, 10)),

times a lift that grows where learning has come to rest while the constraint is still violated. All
of it is this project's choice [ours]; the measurements stand in `docs/controller.md`.
"""

from typing import NamedTuple

from geco_core.multipliers.arithmetic import Arithmetic, Number

__all__ = ["TINY", "Sizes", "highest_multiplier"]

# the ceiling in units of d: at the tolerance, its rise with the violation, where that ends
CEILING, CEILING_SLOPE, CEILING_RANGE = 0.75, 5.0, 0.65
# the ceiling at the tolerance at the end of a run whose length is known
LATE_CEILING = 4.0
# and never above so many times the loss, beyond which hardly any of the error answers; but a loss
# of 0, as that of an encoder that starts at 0, must not keep the multiplier there
DEAREST, LEAST_CEILING = 50.0, 10.0
# the ceiling of constraints that have a scale but no d, in units of the loss
LOSS_CEILING, LOSS_SLOPE = 10.0, 40.0
# the ceiling where not even the scale is known, in units of the loss
FREE_CEILING = 1e5
# a ceiling that holds the multiplier back although learning has come to rest is lifted by this
# much per ascent, up to the multiplier to which 0.8% of the error answers
LIFT, LEAST_SHARE = 1e-3, 0.008
TINY = 1e-30


class Sizes(NamedTuple):
    """What tells how much a multiplier is."""

    elements: Number
    """The elements per example; NaN where unknown, 0 where not even the scale is known."""
    first_loss: Number
    """The largest of the first losses."""
    loss: Number
    """The average of the loss."""
    unit: Number
    """The multiplier to which the whole error answers."""


def highest_multiplier(
    m: Arithmetic, sizes: Sizes, violation: Number, lift: Number, rests: Number, late: Number
) -> tuple[Number, Number]:
    """The highest multiplier, and the logarithm of how far it has been lifted.

    Args:
        m: The functions that may be used.
        sizes: What tells how much a multiplier is.
        violation: The average of the violation, in units of its scale.
        lift: The logarithm of how far the ceiling had been lifted.
        rests: Whether learning has come to rest while the constraint is violated.
        late: The share of the run's second half that is over, 0 where its length is unknown.
    """
    elements, first, loss, unit = sizes
    known, scaled = elements > 0, elements != 0  # NaN is neither above 0 nor equal to it
    free = FREE_CEILING * m.maximum(m.maximum(first, loss), TINY)
    violated = m.maximum(violation, 0.0)
    # what is still missing late in the run is worth a higher price
    lowest = CEILING + (LATE_CEILING - CEILING) * late
    asked = m.minimum(CEILING_SLOPE * violated + lowest, CEILING + CEILING_SLOPE * CEILING_RANGE)
    base = m.minimum(elements * asked, m.maximum(DEAREST * loss, LEAST_CEILING))
    # without d the loss alone tells what is dear; the first one, where it falls towards 0
    other = m.minimum(LOSS_CEILING + LOSS_SLOPE * violated, DEAREST) * loss
    other = m.maximum(m.maximum(other, DEAREST * first), LEAST_CEILING)
    base = m.where(known, base, other)
    lift = m.where(rests, lift + LIFT, m.where(violation < 0, lift - 2.0 * LIFT, lift))
    lift = m.clip(lift, 0.0, 50.0)
    ratio = m.maximum(unit / (LEAST_SHARE * m.maximum(base, TINY)), 1.0)
    lift = m.where(scaled, m.minimum(lift, m.log(ratio)), 0.0)
    return m.where(scaled, base * m.exp(lift), free), lift
