r"""What was seen of the constraints: in one batch, on several ranks, since the last ascent."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from geco_core.multipliers.update import Observation
from geco_core.reduction import sum_over_ranks

if TYPE_CHECKING:
    from torch import distributed as dist

__all__ = ["Seen", "SinceAscent"]


class Seen(NamedTuple):
    """Means over examples, and how many; on the host every field holds numbers."""

    observation: Observation
    """The means: of the violations in the units of the rule, and of the loss."""
    counts: "Tensor | list[float] | None"
    """The examples behind each violation, None where they are all examples."""
    examples: int | Tensor
    """The examples behind the loss."""
    ranges: tuple[slice, ...] = ()
    """The multipliers that are knots of a range, for each range."""

    @property
    def on_host(self) -> bool:
        """Whether it is in plain numbers."""
        return isinstance(self.observation.violation, list)

    def over_ranks(self, group: "dist.ProcessGroup | None") -> "Seen":
        """The same for the examples of all ranks; one message."""
        violation, loss, elements, share = self.observation
        local = cast("int", self.examples)
        counts = self._counts()
        grouped = isinstance(share, Tensor)
        single = loss.ndim == 0
        weight = local if single else counts
        parts = [violation * counts, counts, torch.full_like(counts[:1], local)]
        parts.append((loss * weight).reshape(-1))
        if grouped:
            parts.append(share * local)
        summed = sum_over_ranks(torch.cat(parts), group)
        sizes = [len(part) for part in parts]
        violation, counts, examples, loss, *rest = torch.split(summed, sizes)
        examples = examples[0]
        known = torch.where(counts > 0, counts, 1.0)
        loss = loss[0] / examples if single else loss / known
        share = rest[0] / examples if grouped else share
        seen = Observation(violation / known, loss, elements, share)
        return Seen(seen, counts, examples, self.ranges)

    def joined_with(self, other: "Seen") -> "Seen":
        """The means over the examples of both; both in tensors."""
        one, two = self.observation, other.observation
        ours, theirs = self._counts(), other._counts()
        total = ours + theirs
        violation = one.violation * ours + two.violation * theirs
        examples = self.examples + other.examples
        part, rest = self.examples / examples, other.examples / examples
        known = torch.where(total > 0, total, 1.0)
        if one.loss.ndim:
            loss = (one.loss * ours + two.loss * theirs) / known
        else:
            loss = one.loss * part + two.loss * rest
        observation = Observation(
            violation / known,
            loss,
            two.elements,
            one.share * part + two.share * rest if isinstance(two.share, Tensor) else two.share,
        )
        return Seen(observation, total, examples, self.ranges)

    def enough(self) -> "Tensor | list[bool] | None":
        """Of which multipliers something was seen, :math:`(L,)`; None for all.

        Of a knot half an example at least: its neighbour knows more of one that lies further off.
        """
        if self.counts is None:
            return None
        if isinstance(self.counts, list):  # the knots of one range
            least = 0.5 * sum(self.counts) / cast("int", self.examples)
            return [count > 0 and count >= least for count in self.counts]
        enough: Tensor = self.counts > 0
        for where in self.ranges:
            counts = self.counts[where]
            half = counts * self.examples >= 0.5 * counts.sum()
            enough = torch.cat([enough[: where.start], enough[where] & half, enough[where.stop :]])
        return enough

    def _counts(self) -> Tensor:
        if self.counts is not None:
            return cast("Tensor", self.counts)
        violation: Tensor = self.observation.violation
        return torch.ones_like(violation) * self.examples


@dataclass(slots=True)
class SinceAscent:
    """What an objective remembers; apart, because assignments to a module are slow."""

    seen: Seen | None = None
    """What was seen since the last ascent, if anything."""
    losses: int = 0
    """How many losses there were since the last ascent."""
    last: tuple[Tensor, Tensor, Seen, Any] | None = None
    """The loss, the KL, what was seen and the data's shape of the last call."""
