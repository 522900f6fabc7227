"""The mean over examples, micro-batches and ranks, so that every rank ascends alike."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["is_alone", "mean_over_micro_batches", "mean_over_ranks"]


def is_alone(process_group: "dist.ProcessGroup | None" = None) -> bool:
    """Whether there is no other rank: no `torch.distributed`, or a single rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return True
    return dist.get_world_size(process_group) == 1


def mean_over_ranks(
    mean: Tensor, count: int, process_group: "dist.ProcessGroup | None" = None
) -> tuple[Tensor, Tensor]:
    r"""The mean over the examples of all ranks, which may have unequal shares of the batch.

    Every rank must call this the same number of times.

    Args:
        mean: The means over the examples of this rank, :math:`(L,)`.
        count: The examples of this rank.
        process_group: The ranks to average over; all of them by default.

    Returns:
        The means over the examples of all ranks, :math:`(L,)`, and how many there are, a scalar.
    """
    # one message: the sum and the examples that it is over
    packed = torch.cat([mean * count, mean.new_full((1,), float(count))])
    dist.all_reduce(packed, group=process_group)
    return packed[:-1] / packed[-1], packed[-1]


def mean_over_micro_batches(means: Sequence[Tensor], counts: Sequence[int | Tensor]) -> Tensor:
    r"""The mean over all examples of several micro-batches.

    Args:
        means: One tensor per micro-batch with the means over its examples, each :math:`(L,)`.
        counts: The examples in each micro-batch.

    Returns:
        The means weighted by the examples, :math:`(L,)`.
    """
    if len(means) == 1:
        return means[0]
    total = sum(counts)
    return sum(mean * (count / total) for mean, count in zip(means, counts, strict=True))  # type: ignore[return-value]
