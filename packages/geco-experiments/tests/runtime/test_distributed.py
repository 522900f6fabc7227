"""Two real processes over gloo, against one process on the joined batch."""

import multiprocessing
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from geco_experiments import open_run, run
from geco_experiments.runtime.distributed import JointNoise, Ranks, process_group
from geco_experiments.runtime.errors import RunError
from geco_experiments.training import Stopped

SCRIPT = """
import sys
import torch
from geco_experiments.training import runner as training
from geco_experiments.config import RunConfig
from geco_experiments.runtime.distributed import process_group
from geco_experiments.training.loop import Loop

config = RunConfig.from_json(open(sys.argv[1]).read())
out = sys.argv[2]
seen = []
train = Loop.train


def watched(self, **options):
    train(self, **options)
    state = self.objective.state_dict()
    torch.save(
        {"multiplier": self.objective.info.multiplier,
         "moving_average": self.objective.info.moving_average,
         "weights": [p.detach() for p in self.model.parameters()]},
        f"{out}/rank{self.ranks.rank}.pt",
    )


Loop.train = watched
with process_group("cpu") as ranks:
    training.run(config, out)
"""


def torchrun(tmp_path, config, processes=2):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={processes}", str(tmp_path / "script.py"),
        str(tmp_path / "config.json"), str(out),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    return done, out


def one_of_two(rank, port, config, out, at, answers):
    """A process of a pair; it is asked to stop once it has been asked `at` times."""
    place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in place.items()}, MASTER_ADDR="127.0.0.1")
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return asked == at

    try:
        with process_group("cpu"):
            run(config, out, stop=stop)
    except Stopped as event:
        answers.put((rank, str(event)))
    else:
        answers.put((rank, "finished"))


def pair(config, out, stops=(0, 0)):
    """What both processes of a run say; forked, so that nothing is imported anew."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    processes = [
        context.Process(target=one_of_two, args=(rank, port, config, out, stops[rank], answers))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return dict(answers.get() for _ in processes)


def finished(folder):
    (path,) = folder.glob("*/run.nc")
    return open_run(path)


def equal_to_rounding(joined, alone, names):
    assert (joined.attrs["processes"], alone.attrs["processes"]) == (2, 1)
    for name in names:
        np.testing.assert_allclose(joined[name], alone[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_tolerances_are_drawn_for_the_joined_batch_and_stops_agreed_on(
    tmp_path, tiny, same_result
):
    """One process alone is told to stop, as if a signal reached it before the other."""
    over = {"objective.kappa": "0.1..0.3", "objective.kappa_grid": [0.1, 0.3]}
    config = tiny(**{"training.steps": 6, "training.marginal_samples": 0, **over})
    told = pair(config, tmp_path / "parts", stops=(0, 4))
    assert told == dict.fromkeys((0, 1), "stopped after step 4 of 6")
    folder = tmp_path / "parts" / config.name
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "run.nc").exists()
    assert pair(config, tmp_path / "parts") == dict.fromkeys((0, 1), "finished")
    assert pair(config, tmp_path / "whole") == dict.fromkeys((0, 1), "finished")
    joined = finished(tmp_path / "whole")
    same_result(finished(tmp_path / "parts"), joined)
    run(config, tmp_path / "one")
    names = ("kl", "rms_error", "knot_multiplier", "final_kl", "final_rms_error")
    equal_to_rounding(joined, finished(tmp_path / "one"), names)


def test_angles_are_drawn_for_the_joined_batch(tmp_path, tiny, fake_mnist, monkeypatch):
    monkeypatch.setenv("GECO_DATA_HOME", str(fake_mnist))
    config = tiny(**{"training.steps": 4, "dataset.name": "mnist-rotate",
                     "model.name": "conv-vae", "model.width": 8})  # fmt: skip
    pair(config, tmp_path / "two")
    run(config, tmp_path / "one")
    names = ("kl", "rms_error", "multiplier", "final_kl")
    equal_to_rounding(finished(tmp_path / "two"), finished(tmp_path / "one"), names)


DRAW = {"model.name": "conv-draw", "model.latents": 2, "model.width": 8, "model.draw_steps": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"objective.kappa": 0.2},
        pytest.param({"objective.update": "paper"}, marks=pytest.mark.slow),
        {"objective.name": "elbo", **DRAW},
    ],
    ids=["robust", "paper", "elbo-conv-draw"],
)
def test_two_processes_are_one_on_the_joined_batch(tmp_path, tiny, changes):
    config = tiny(**{"training.steps": 20, **changes})
    done, out = torchrun(tmp_path, config)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(out / f"rank{rank}.pt") for rank in (0, 1)]
    if config.objective.name == "geco":
        for name in ("multiplier", "moving_average"):
            assert torch.equal(ranks[0][name], ranks[1][name]), name
    for one, other in zip(ranks[0]["weights"], ranks[1]["weights"], strict=True):
        assert torch.equal(one, other)
    joined = open_run(out / config.name)
    alone = open_run(run(config, tmp_path / "alone"))
    assert joined.attrs["processes"] == 2
    for name in ("kl", "rms_error", "multiplier", "moving_average"):
        np.testing.assert_allclose(joined[name], alone[name], rtol=1e-3, atol=1e-5, err_msg=name)
    for name in ("final_rms_error", "final_kl", "final_nll", "marginal_kl"):
        np.testing.assert_allclose(joined[name], alone[name], rtol=1e-3, err_msg=name)
    assert joined["images"].values.tolist() == [100, 50]


def test_errors_of_the_first_process_end_all_of_them(tmp_path, tiny):
    config = tiny(**{"dataset.name": "mnist"})
    done, out = torchrun(tmp_path, config)
    assert done.returncode != 0
    assert "geco data fetch mnist" in done.stderr
    assert not list(out.glob("*/run.nc"))


@pytest.mark.parametrize(("size", "axis"), [((4, 3), 0), ((2, 5, 6, 6), 0), ((3, 4, 2, 5, 5), 1)])
def test_joint_noise_is_the_share_of_one_draw(size, axis):
    joined = [2 * n if i == axis else n for i, n in enumerate(size)]
    whole = torch.randn(joined, generator=torch.Generator().manual_seed(3))
    parts = []
    for rank in range(2):
        generator = torch.Generator().manual_seed(3)
        with JointNoise(Ranks(rank, 2)):
            parts.append(torch.randn(size, generator=generator))
            # spelled as separate numbers, and by keyword, it is the same
            again = torch.Generator().manual_seed(3)
            assert torch.equal(torch.randn(*size, generator=again), parts[-1])
            again.manual_seed(3)
            assert torch.equal(torch.randn(size=size, generator=again), parts[-1])
            assert torch.randn(size).shape == size
    assert torch.equal(torch.cat(parts, axis), whole)


def test_draws_from_another_source_are_left_alone():
    latents, other = (torch.Generator().manual_seed(3) for _ in range(2))
    with JointNoise(Ranks(1, 2), latents):
        assert torch.rand(4, generator=latents).shape == (4,)
        drawn = torch.rand(4, generator=other)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_alone(tmp_path):
    ranks = Ranks.current()
    assert (ranks.rank, ranks.world, ranks.is_main) == (0, 1, True)
    x = torch.arange(4.0)
    assert torch.equal(ranks.mean(x), x)
    assert torch.equal(ranks.share(x), x)
    assert ranks.from_main(lambda: 3) == 3
    ranks.barrier()


def test_a_batch_that_cannot_be_shared(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(Ranks, "current", classmethod(lambda cls: cls(0, 3)))
    with pytest.raises(RunError, match="must be a multiple of the 3 processes"):
        run(tiny(), tmp_path)
