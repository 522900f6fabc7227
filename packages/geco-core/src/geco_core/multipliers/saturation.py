"""Saying that a constraint cannot be reached, without waiting for the device."""

import logging
from collections.abc import Sequence

from torch import Tensor

from geco_core.constraints.base import Constraint
from geco_core.constraints.tolerance import ToleranceConstraint
from geco_core.constraints.tolerance_range import Scale, tightest_met
from geco_core.feasibility import TOLERANCE
from geco_core.multipliers.state import Multipliers
from geco_core.multipliers.watch import Labelled, Watch

__all__ = ["SaturationWatch"]

logger = logging.getLogger(__name__)


class SaturationWatch(Watch):
    """Warns once of each multiplier that is stuck at its upper bound."""

    def flags(self, multipliers: Multipliers) -> Tensor:
        """Which are stuck."""
        return multipliers.saturated()

    def worth_reading(self, flags: list[float]) -> bool:
        """Also where something was said that may hold no longer."""
        return any(flags) or bool(self._said)

    def read(self, multipliers: Multipliers, labelled: Labelled) -> None:
        """Reads the flags now, and warns of those that have not been warned of."""
        saturated = multipliers.saturated().tolist()
        named = dict(labelled.items())
        scales = [constraint.scale for constraint in named.values()]
        within: set[int] = set()
        for name, where, constraint, along in labelled.ranges():
            within |= {*range(where.start, where.stop)}
            average = multipliers.moving_average(scales) / multipliers.as_tensor(scales)
            # NaN where nothing was seen yet
            met = [value <= TOLERANCE for value in average[where].tolist()]
            if all(met):
                self._said.discard(name)
            # not before the loose end has settled: what can be reached is not known earlier
            stuck = saturated[where]
            if any(stuck) and (met[-1] or all(stuck)) and name not in self._said:
                self._said.add(name)
                _warn_range(name, constraint, along, average[where], met)
        for i, (name, one) in enumerate(named.items()):
            if i in within:
                continue
            if not saturated[i]:
                self._said.discard(name)
            elif name not in self._said:
                self._said.add(name)
                _warn(name, one, i, multipliers, scales)


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


def _warn_range(
    name: str,
    constraint: ToleranceConstraint,
    along: Scale,
    average: Tensor,
    met: Sequence[bool],
) -> None:
    allowed, kappa = average.new_tensor(constraint.scales), along.at_knots()
    reached = constraint.tolerance(allowed * (1.0 + average)).tolist()
    tightest = tightest_met(kappa, reached, met)
    if tightest == tightest:
        said = (
            f"the {along.tighter} tolerance that is met is about {tightest:.4g}: let the range end"
        )
        said += " there"
    else:
        said = f"no tolerance of the range is met, the model reaches {reached[-1]:.4g} in place "
        said += f"of {kappa[-1]:.4g}: give the range another place"
    logger.warning(
        "constraint %r is not reached along the whole of its range %s: in place of kappa %.4g the "
        "model reaches %.4g, while the multiplier is saturated at its upper bound; %s, train "
        "longer or enlarge the model; training goes on at the best trade-off",
        name,
        along.ends,
        kappa[0],
        reached[0],
        said,
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
