"""One rank of `test_reduction.py`, run as a script: rank, port, where the results go.

A file of its own, because a process that is started anew cannot import a test module.
"""

import sys
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from geco_core import GECO, PaperUpdate, ReconstructionError, ToleranceRange

SIZES = (3, 9)  # uneven: a mean of the ranks' means would be wrong
UPDATES = {"robust": lambda: None, "paper": lambda: PaperUpdate(rate=0.05), "range": lambda: None}


def data() -> Tensor:
    """Six steps of joined batches."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, sum(SIZES), 4, generator=generator).mul(2.0)


def objectives(update: str) -> GECO:
    """Two constraints under a rule."""
    tight = ToleranceRange(0.5, 0.7) if update == "range" else 0.5
    constraints = {"re": ReconstructionError(tight), "loose": ReconstructionError(1.5)}
    return GECO(constraints, update=UPDATES[update]())


def train(objective: GECO, batches: Iterable[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """Some ascents, each from several micro-batches: the table at the end, the gradients."""
    gradients = []
    for parts in batches:
        weight = torch.tensor(0.3, requires_grad=True)
        for part in parts:
            ranged = any(objective.ranges())
            # a tolerance that belongs to the example, whichever rank has it
            batch = {"kappa": 0.5 + 0.2 * part[:, 0].nan_to_num().sigmoid()} if ranged else {}
            objective(weight * part.square().sum(1), part, weight * part, **batch).backward()
        objective.step()
        gradients.append(weight.grad)
    return objective.multipliers.table, torch.stack(gradients)


def work(rank: int, port: str, results: str) -> None:
    """What one rank does."""
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=len(SIZES)
    )
    shares = [x.split(SIZES)[rank] for x in data()]
    out = {}
    for name in UPDATES:
        batches = [[share] for share in shares]
        out[name], out[f"{name}-gradients"] = train(objectives(name), batches)
        # accumulation on every rank as well: one ascent from all
        parts = [share.split(SIZES[rank] // 3) for share in shares]
        out[f"{name}-parts"], _ = train(objectives(name), parts)
        bad = [share.clone() for share in shares]
        if rank == 1:
            bad[2][0] = torch.nan
        out[f"{name}-nan"], _ = train(objectives(name), [[share] for share in bad])
    torch.save(out, f"{results}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    work(int(sys.argv[1]), *sys.argv[2:])
