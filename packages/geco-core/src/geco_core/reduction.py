"""The mean over examples, micro-batches and ranks, so that every rank ascends alike."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["is_alone", "mean_over_examples"]


def is_alone(process_group: "dist.ProcessGroup | None" = None) -> bool:
    """Whether there is no other rank: no `torch.distributed`, or a single rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return True
    return dist.get_world_size(process_group) == 1


def mean_over_examples(
    means: Sequence[Tensor],
    counts: Sequence[int],
    process_group: "dist.ProcessGroup | None" = None,
) -> Tensor:
    r"""The mean over all examples of several micro-batches on all ranks.

    Every rank must call this the same number of times. Without an initialised
    `torch.distributed`, or with a single rank, only the micro-batches of this process count.

    Args:
        means: One tensor per micro-batch with the means over its examples, each :math:`(L,)`.
        counts: The examples in each micro-batch.
        process_group: The ranks to average over; all of them by default.

    Returns:
        The means weighted by the examples, :math:`(L,)`.
    """
    if is_alone(process_group):
        if len(means) == 1:
            return means[0]
        total = sum(counts)
        return sum(mean * (count / total) for mean, count in zip(means, counts, strict=True))  # type: ignore[return-value]
    summed = torch.stack([m * c for m, c in zip(means, counts, strict=True)]).sum(0)
    # one message: the weighted sum and the examples that it is over
    packed = torch.cat([summed, summed.new_full((1,), float(sum(counts)))])
    dist.all_reduce(packed, group=process_group)
    return packed[:-1] / packed[-1]
