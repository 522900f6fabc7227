"""Two processes ascend alike, and like one process on the joined batch."""

import socket

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from geco_core import GECO, PaperUpdate, ReconstructionError
from geco_core.reduction import mean_over_examples

SIZES = (3, 9)  # uneven: a mean of the ranks' means would be wrong
UPDATES = {"robust": lambda: None, "paper": lambda: PaperUpdate(rate=0.05)}


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, sum(SIZES), 4, generator=generator).mul(2.0)


def objectives(update):
    constraints = {"re": ReconstructionError(0.5), "loose": ReconstructionError(1.5)}
    return GECO(constraints, update=UPDATES[update]())


def train(objective, batches, whole=None):
    for x in batches:
        weight = torch.tensor(0.3, requires_grad=True)
        for part in x:
            objective(weight * part.square().sum(1), part, weight * part).backward()
        objective.step()
    return objective.multipliers.table


def work(rank, port, results):
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=len(SIZES)
    )
    out = {}
    for name in UPDATES:
        shares = [x.split(SIZES)[rank] for x in data()]
        out[name] = train(objectives(name), [[share] for share in shares])
        # accumulation on every rank as well: one ascent from all
        out[f"{name}-parts"] = train(objectives(name), [x.split(1) for x in shares])
        broken = objectives(name)
        bad = [share.clone() for share in shares]
        if rank == 1:
            bad[2][0] = torch.nan
        out[f"{name}-nan"] = train(broken, [[share] for share in bad])
    torch.save(out, f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(port, str(results)), nprocs=len(SIZES))
    return [torch.load(results / f"{rank}.pt", weights_only=True) for rank in range(len(SIZES))]


@pytest.mark.parametrize("name", list(UPDATES))
def test_ranks_agree_and_equal_the_joined_batch(ranks, name):
    joined = train(objectives(name), [[x] for x in data()])
    for key in (name, f"{name}-parts"):
        assert torch.equal(ranks[0][key], ranks[1][key])
        torch.testing.assert_close(ranks[0][key], joined, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(UPDATES))
def test_a_non_finite_rank_makes_all_skip(ranks, name):
    both = [rank[f"{name}-nan"] for rank in ranks]
    assert torch.equal(*both)
    assert both[0][3].tolist() == [1.0, 1.0]
    assert both[0].isfinite().all()


def test_one_process_needs_no_group():
    means = [torch.tensor([1.0, 10.0]), torch.tensor([4.0, 40.0])]
    torch.testing.assert_close(mean_over_examples(means, [2, 1]), torch.tensor([2.0, 20.0]))
    assert mean_over_examples(means[:1], [7]) is means[0]
