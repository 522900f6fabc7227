"""The seam to torch.distributed: everything a run asks of it, and nothing when alone.

`torchrun` starts one process per device and tells each its place by environment variables. The
processes work on shares of one joined batch and draw the joined batch's noise, so that a run on
several processes is the run on one process up to the order of sums.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.overrides import TorchFunctionMode

from geco_experiments.runtime.errors import GecoError, RunError

__all__ = ["JointNoise", "Ranks", "process_group"]

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of one run."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process reads and writes the run's folder."""
        return self.rank == 0

    @classmethod
    def current(cls) -> "Ranks":
        """The place in the default process group; alone without one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def share(self, rows: Tensor, axis: int = 0) -> Tensor:
        """This rank's part of the rows of a joined batch."""
        size = rows.shape[axis] // self.world
        return rows.narrow(axis, self.rank * size, size)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks."""
        if self.world > 1:
            dist.all_reduce(values)
            values = values / self.world
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, here: bool) -> bool:
        """Whether it is true on some rank: all of them then do the same at the same step."""
        if self.world == 1:
            return here
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        flag = torch.tensor(int(here), device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def from_main(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, on every rank; an error of rank 0 is raised on every rank.

        Raises:
            GecoError: as raised by `make` on rank 0.
        """
        if self.world == 1:
            return make()
        message: list[Any] = [None, None]
        failure: GecoError | None = None
        if self.is_main:
            try:
                message = [make(), None]
            except GecoError as error:
                failure, message = error, [None, str(error)]
        dist.broadcast_object_list(message)
        if failure is not None:
            raise failure
        if message[1] is not None:
            raise RunError(message[1])
        result: T = message[0]
        return result

    def from_main_first(self, make: Callable[[], T]) -> T:
        """What `make` returns, made by rank 0 before the others, so that they find its files.

        Raises:
            GecoError: as raised by `make`, on every rank.
        """
        mine: list[T] = []
        self.from_main(lambda: mine.append(make()))
        return mine[0] if mine else make()

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()


class JointNoise(TorchFunctionMode):
    """Makes `torch.randn(..., generator=g)` return this rank's rows of the joined batch's draw.

    All ranks hold generators in the same state. Each draws what one process would draw for the
    joined batch and keeps its share, so that the noise of every example is the same however many
    processes there are. Draws without a generator are left alone, and so are those from another
    one than `generator`: what they draw is for the joined batch already.

    Args:
        ranks: This process's place.
        generator: The source whose draws are joined; None: every one.
    """

    def __init__(self, ranks: Ranks, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.ranks = ranks
        self.generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Widen the first dimension of a draw and take the share back out."""
        kwargs = kwargs or {}
        source = kwargs.get("generator")
        other = self.generator is not None and source is not self.generator
        if func not in (torch.randn, torch.rand) or source is None or other:
            return func(*args, **kwargs)
        size = kwargs.pop("size", None) or (
            args[0] if args and not isinstance(args[0], int) else args
        )
        # recurrent models draw all steps at once, (steps, batch, C, H, W); others batch first
        axis = 1 if len(size) >= 5 else 0
        joined = list(size)
        joined[axis] *= self.ranks.world
        return self.ranks.share(func(joined, **kwargs), axis)


def _world() -> int:
    text = os.environ.get("WORLD_SIZE", "1")
    try:
        return int(text)
    except ValueError as error:
        raise RunError(f"WORLD_SIZE must be a whole number; got {text!r}") from error


@contextlib.contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the other processes if `torchrun` started this one; else be alone.

    Args:
        device: The configured device: accelerators talk through nccl, processors through gloo.
    """
    world = _world()
    if world == 1 or dist.is_initialized():
        yield Ranks.current()
        return
    accelerated = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    try:
        if accelerated:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if accelerated else "gloo")
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise RunError(
            f"WORLD_SIZE is {world}, but the processes cannot meet ({reason}): start them with "
            "`torchrun --nproc-per-node N -m geco_experiments run ...`, or unset WORLD_SIZE"
        ) from error
    try:
        yield Ranks.current()
    finally:
        dist.destroy_process_group()
