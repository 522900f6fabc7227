r"""The loss of a batch whose examples have tolerances of their own.

With :math:`h_{ik}` the hat weights of example :math:`i` at knot :math:`k` and :math:`c_i` its
violation relative to what is allowed at its tolerance, the rule sees at each knot

.. math::

    c_k = \frac{\sum_i h_{ik} c_i}{\sum_i h_{ik}}, \qquad
    K_k = \frac{\sum_i h_{ik} KL_i}{\sum_i h_{ik}},

and moves its multiplier as it moves that of a single tolerance. Between knots
:math:`\ln \lambda` is linear. Each example's loss is divided by what the rule divides it by at its
tolerance, so that no part of the range outweighs another:

.. math::

    \text{loss} = \frac 1 B \sum_i \frac{KL_i + \lambda(\kappa_i) c_i}{D(\kappa_i)}.

At every fixed point :math:`c_k = 0` at all knots, whatever the divisors. Constraints of one
tolerance are means over the whole batch. All of it is this project's choice [ours].
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from geco_core.constraints.base import Measure
from geco_core.constraints.reductions import counted
from geco_core.constraints.tolerance_range import MOST, TINY, hats, interpolated
from geco_core.multipliers.arithmetic import NUMBERS, TENSORS
from geco_core.multipliers.observed import Seen
from geco_core.multipliers.state import Multipliers, by_column
from geco_core.multipliers.update import ColumnUpdate, Observation

if TYPE_CHECKING:
    from torch import distributed as dist

__all__ = ["AtKnots", "OfAll", "Part", "loss_along", "observed_along"]


class AtKnots(NamedTuple):
    """A constraint of which every example has its own tolerance."""

    violations: Tensor
    """In the units of the rule, :math:`(B,)`."""
    weights: Tensor | None
    """How much each example counts, :math:`(B,)`; None where all count alike."""
    hats: Tensor
    """How much it belongs to each knot, :math:`(B, K)`."""
    elements: float
    """The elements of an example, NaN where unknown."""

    def counts(self) -> Tensor:
        """The examples at every knot, :math:`(B, K)`."""
        return self.hats if self.weights is None else self.hats * self.weights[:, None]

    def losses(self) -> Tensor:
        """What each example adds to the loss at multiplier 1, :math:`(B,)`."""
        if self.weights is None:
            return self.violations
        mean = self.weights.mean()
        return counted(self.violations, self.weights) / torch.where(mean > 0, mean, 1.0)


class OfAll(NamedTuple):
    """A constraint of one tolerance."""

    measure: Measure
    """What it says of the batch."""
    scale: float
    """What its violations are divided by."""
    elements: float
    """The elements of an example, NaN where unknown."""


Part = AtKnots | OfAll


def observed_along(
    multipliers: Multipliers,
    kl: Tensor,
    parts: Sequence[Part],
    ranks: "tuple[dist.ProcessGroup | None] | None" = None,
) -> Seen:
    """What the rule sees of a batch: at every knot, and of all constraints of one tolerance.

    Args:
        multipliers: The table.
        kl: The loss of every example, :math:`(B,)`.
        parts: What each constraint says.
        ranks: The process group, in a tuple, whose ranks see a part of the batch each.
    """
    multipliers.widen()
    if ranks is None and len(parts) == 1:
        quick = _on_host(multipliers, kl, parts[0])
        if quick is not None:
            return quick
    table, examples = multipliers.table, kl.shape[0]
    kl = kl.detach().to(table.dtype)
    values: list[Tensor] = []
    losses: list[Tensor] = []
    counts: list[Tensor] = []
    shares: list[Tensor] = []
    elements: list[float] = []
    for part in parts:
        if isinstance(part, AtKnots):
            count = part.counts().detach().to(table.dtype)
            total = count.sum(0)
            safe = torch.where(total > 0, total, 1.0)
            each = part.violations.detach().to(table.dtype)
            values.append(counted(each[:, None], count).sum(0) / safe)
            losses.append(counted(kl[:, None], count).sum(0) / safe)
            counts.append(total)
            shares.append(torch.ones_like(total))
        else:
            value, weight, share = part.measure
            value = value.detach().reshape(-1).to(table.dtype) / part.scale
            values.append(value)
            losses.append(kl.mean().expand_as(value))
            weight = torch.full_like(value, examples) if weight is None else weight
            counts.append(weight.detach().reshape(-1).to(table.dtype))
            share = torch.ones_like(value) if share is None else share
            shares.append(share.detach().reshape(-1).to(table.dtype))
        elements += [part.elements] * len(values[-1])
    observation = Observation(
        torch.cat(values), torch.cat(losses), multipliers.constant(elements), torch.cat(shares)
    )
    pairs = zip(parts, _columns(parts), strict=True)
    ranges = tuple(where for part, where in pairs if isinstance(part, AtKnots))
    here = Seen(observation, torch.cat(counts), examples, ranges)
    return here if ranks is None else here.over_ranks(*ranks)


def loss_along(multipliers: Multipliers, kl: Tensor, parts: Sequence[Part], seen: Seen) -> Tensor:
    """The mean over the examples of their losses, each divided by its own divisor.

    Args:
        multipliers: The table.
        kl: The loss of every example, :math:`(B,)`.
        parts: What each constraint says.
        seen: What :func:`observed_along` returned.
    """
    update = cast("ColumnUpdate", multipliers.update)
    if seen.on_host:
        return _loss_on_host(multipliers, kl, cast("AtKnots", parts[0]), seen)
    weight, adds = update.weigh(TENSORS, update.columns(multipliers.table), seen.observation)
    adds = adds * torch.ones_like(weight)
    columns = _columns(parts)
    alike, losses = torch.zeros_like(weight[0]), kl
    fixed: list[Tensor] = []
    for part, where in zip(parts, columns, strict=True):
        if isinstance(part, AtKnots):
            multiplier = interpolated(weight[where], part.hats.to(weight.dtype))
            losses = losses + multiplier * part.losses()
        else:
            value = part.measure.value.reshape(-1) / part.scale
            share = part.measure.share
            share = torch.ones_like(value) if share is None else share.detach()
            alike = alike + (adds[where] * seen.observation.share[where]).sum()
            fixed.append((value * weight[where].to(value.dtype) * share).sum())

    def divisors(belonging: Sequence[Tensor]) -> Tensor:
        ranged = [
            interpolated(adds[where], hats_.to(adds.dtype))
            for where, hats_ in zip(seen.ranges, belonging, strict=True)
        ]
        divisor: Tensor = update.divisor(TENSORS, sum(ranged, alike))
        return divisor

    own = [part.hats for part in parts if isinstance(part, AtKnots)]
    loss: Tensor = (losses / divisors(own)).mean()
    if fixed:
        # the mean over all examples of all ranks, by how many there are at each knot
        place = torch.linspace(0.0, 1.0, own[0].shape[1], dtype=adds.dtype, device=adds.device)
        at_knots = divisors([hats(place, one.shape[1]) for one in own])
        counts = cast("Tensor", seen.counts)[seen.ranges[0]]
        loss = loss + sum(fixed) * (counts / at_knots).sum() / counts.sum().clamp(min=TINY)
    return loss.to(kl.dtype)


def _on_host(multipliers: Multipliers, kl: Tensor, part: Part) -> Seen | None:
    """The same in plain numbers for a single range, whose violations are finite."""
    if not isinstance(part, AtKnots) or not multipliers.on_host(part.hats.shape[1], MOST):
        return None
    tensors = (kl, part.violations, part.hats)
    # fake tensors and those of other tracers are subclasses
    if not all(type(one) is Tensor and one.dtype == kl.dtype for one in tensors):
        return None
    each = torch.stack([part.violations.detach(), kl.detach(), torch.ones_like(kl)])
    values, losses, counts = (each @ part.counts()).tolist()
    if not math.isfinite(sum(values) + sum(losses)):
        return None  # which knots have seen what is not finite, is seen in tensors
    observation = Observation(
        [value / (count or 1.0) for value, count in zip(values, counts, strict=True)],
        [loss / (count or 1.0) for loss, count in zip(losses, counts, strict=True)],
        [part.elements] * len(counts),
        1.0,
    )
    return Seen(observation, counts, len(kl), (slice(0, len(counts)),))


def _loss_on_host(multipliers: Multipliers, kl: Tensor, part: AtKnots, seen: Seen) -> Tensor:
    update = cast("ColumnUpdate", multipliers.update)
    pairs = zip(multipliers.columns(), by_column(seen.observation), strict=True)
    weighed = [update.weigh(NUMBERS, column, one) for column, one in pairs]
    table = part.hats.new_tensor(list(zip(*weighed, strict=True)))
    multiplier, adds = interpolated(table, part.hats)
    loss: Tensor = (kl + multiplier * part.losses()) / update.divisor(TENSORS, adds)
    return loss.mean()


def _columns(parts: Sequence[Part]) -> list[slice]:
    """Which multipliers each constraint has."""
    sizes = [
        part.hats.shape[1] if isinstance(part, AtKnots) else part.measure.value.numel()
        for part in parts
    ]
    ends = list(accumulate(sizes))
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
