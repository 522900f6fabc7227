"""Two processes ascend alike, and like one process on the joined batch."""

import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from geco_core.multipliers.observed import Seen
from geco_core.multipliers.update import Observation

WORKER = Path(__file__).with_name("ddp_worker.py")
NAMES = ("robust", "paper", "range")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = tmp_path_factory.mktemp("ranks")
    arguments = [[sys.executable, WORKER, str(rank), str(port), results] for rank in range(2)]
    processes = [subprocess.Popen(one, stderr=subprocess.PIPE) for one in arguments]
    errors = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(errors)
    return [torch.load(results / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_ranks_agree_and_equal_the_joined_batch(ranks, name):
    worker = runpy.run_path(str(WORKER))
    joined, gradients = worker["train"](
        worker["objectives"](name), [[x] for x in worker["data"]()]
    )
    for key in (name, f"{name}-parts"):
        assert torch.equal(ranks[0][key], ranks[1][key])
        torch.testing.assert_close(ranks[0][key], joined, rtol=1e-5, atol=1e-5)
    # the loss is weighed alike on all ranks, though each saw another violation
    sizes = torch.tensor(worker["SIZES"])
    shares = torch.stack([rank[f"{name}-gradients"] for rank in ranks])
    torch.testing.assert_close((sizes / sizes.sum()) @ shares, gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_non_finite_rank_makes_all_skip(ranks, name):
    both = [rank[f"{name}-nan"] for rank in ranks]
    assert torch.equal(*both)
    skipped = both[0][3].tolist()
    # of a range only the knots beside the example's tolerance have seen it
    assert skipped[-1] == 1.0
    assert sum(skipped[:-1]) in ((1.0,) if name != "range" else (1.0, 2.0))
    assert both[0].isfinite().all()


def test_micro_batches_are_weighed_by_their_examples():
    seen = [
        Seen(Observation(torch.tensor(v), torch.tensor(loss), torch.zeros(2), 1.0), None, n)
        for v, loss, n in (([1.0, 10.0], 3.0, 2), ([4.0, 40.0], 6.0, 1))
    ]
    joined = seen[0].joined_with(seen[1])
    torch.testing.assert_close(joined.observation.violation, torch.tensor([2.0, 20.0]))
    assert joined.observation.loss.item() == 4.0
    assert joined.examples == 3
