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
    counts: Tensor | None
    """The examples behind each violation, None where they are all examples."""
    examples: int | Tensor
    """The examples behind the loss."""

    @property
    def on_host(self) -> bool:
        """Whether it is in plain numbers."""
        return isinstance(self.observation.violation, list)

    def over_ranks(self, group: "dist.ProcessGroup | None") -> "Seen":
        """The same for the examples of all ranks; one message."""
        violation, loss, elements, share = self.observation
        local = cast("int", self.examples)
        counts = torch.full_like(violation, float(local)) if self.counts is None else self.counts
        grouped = isinstance(share, Tensor)
        parts = [violation * counts, counts, torch.stack([loss, torch.ones_like(loss)]) * local]
        if grouped:
            parts.append(share * local)
        columns = len(violation)
        summed = sum_over_ranks(torch.cat(parts), group)
        violation, counts = summed[:columns], summed[columns : 2 * columns]
        loss, examples = summed[2 * columns], summed[2 * columns + 1]
        share = summed[2 * columns + 2 :] / examples if grouped else share
        seen = Observation(
            violation / torch.where(counts > 0, counts, 1.0), loss / examples, elements, share
        )
        return Seen(seen, counts, examples)

    def joined_with(self, other: "Seen") -> "Seen":
        """The means over the examples of both; both in tensors."""
        one, two = self.observation, other.observation
        ours, theirs = self._counts(), other._counts()
        total = ours + theirs
        violation = one.violation * ours + two.violation * theirs
        examples = self.examples + other.examples
        part, rest = self.examples / examples, other.examples / examples
        observation = Observation(
            violation / torch.where(total > 0, total, 1.0),
            one.loss * part + two.loss * rest,
            two.elements,
            one.share * part + two.share * rest if isinstance(two.share, Tensor) else two.share,
        )
        return Seen(observation, total, examples)

    def _counts(self) -> Tensor:
        if self.counts is not None:
            return self.counts
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
