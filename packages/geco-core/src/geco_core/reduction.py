"""Sums over ranks, so that every rank ascends alike."""

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["is_alone", "sum_over_ranks"]


def is_alone(process_group: "dist.ProcessGroup | None" = None) -> bool:
    """Whether there is no other rank: no `torch.distributed`, or a single rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return True
    return dist.get_world_size(process_group) == 1


def sum_over_ranks(values: Tensor, process_group: "dist.ProcessGroup | None" = None) -> Tensor:
    r"""The sum of the values of all ranks; it overwrites `values`.

    Every rank must call this the same number of times.

    Args:
        values: The values of this rank, detached.
        process_group: The ranks to sum over; all of them by default.

    Raises:
        RuntimeError: If another rank does not answer, with what to look for.
    """
    if torch.compiler.is_compiling():
        dist.all_reduce(values, group=process_group)
        return values
    try:
        dist.all_reduce(values, group=process_group)
    except RuntimeError as error:
        raise RuntimeError(
            "the objective could not add up the violations of all ranks: every rank must call "
            "the objective in training mode the same number of times (give all the same number "
            "of batches, e.g. with drop_last=True, or evaluate under objective.eval()); another "
            f"rank may also have stopped with an error of its own. The backend says: {error}"
        ) from error
    return values
