import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from geco_experiments import open_run
from geco_experiments.config import RunConfig
from geco_experiments.results.combine import load
from geco_experiments.runtime.errors import RunError
from geco_experiments.runtime.progress import NoMeter
from geco_experiments.sweeps import executors, product, sweep
from geco_experiments.sweeps.tasks import Task, perform


class Recorder(NoMeter):
    interval = 0.0

    def __init__(self):
        self.reports = []
        self.total = None

    def start(self, name, total, done):
        self.total = total

    def report(self, done, values):
        self.reports.append((done, values))


@pytest.fixture
def six(tiny):
    base = tiny(**{"training.steps": 12})
    return product(base, {"objective.kappa": [0.15, 0.2, 0.3], "seed": [0, 1]})


def test_product(six):
    assert len({config.name for config in six}) == 6
    assert [config.kappa for config in six] == [0.15, 0.15, 0.2, 0.2, 0.3, 0.3]
    assert product(RunConfig(), {}) == [RunConfig()]
    with pytest.raises(ValueError, match="did you mean"):
        product(RunConfig(), {"objective.kapa": [1]})


def test_serial_sweep_makes_skips_and_combines(tmp_path, six):
    meter = Recorder()
    outcome = sweep([*six, six[0]], tmp_path, executor="serial", progress=meter)
    assert len(outcome.finished) == 6
    assert not outcome.failed
    assert str(outcome) == "6 of 6 runs finished"
    assert meter.total == 72
    assert meter.reports[-1] == (72, {"finished": 6, "failed": 0})
    data = load(tmp_path)
    assert (data.sizes["kappa"], data.sizes["seed"]) == (3, 2)
    times = [path.stat().st_mtime_ns for path in outcome.finished]
    again = sweep(six, tmp_path, executor="serial")
    assert sorted(again.finished) == sorted(outcome.finished)
    assert [path.stat().st_mtime_ns for path in outcome.finished] == times


def test_a_failure_is_told_with_its_log_and_stops_nothing(tmp_path, six):
    bad = product(six[0], {"dataset.name": ["celeba"]})
    outcome = sweep([six[0], *bad, six[1]], tmp_path, executor="serial", data_home=tmp_path)
    assert len(outcome.finished) == 2
    (failed,) = outcome.failed
    assert failed.kind == "MissingDataError"
    assert "celeba" in failed.error
    assert failed.error in failed.log.read_text()
    assert str(failed.log) in str(outcome)
    assert "2 of 3 runs finished" in str(outcome)


def test_unexpected_errors_leave_their_traceback_in_the_log(tmp_path, six, monkeypatch):
    monkeypatch.setattr("geco_experiments.training.loop.Loop.advance", lambda self: 1 / 0)
    outcome = sweep(six[:1], tmp_path, executor="serial")
    (failed,) = outcome.failed
    assert failed.kind == "ZeroDivisionError"
    assert "Traceback" in failed.log.read_text()


def test_local_pool_equals_serial(tmp_path, six, same_result):
    meter = Recorder()
    outcome = sweep(six[:3], tmp_path / "pool", executor="local", workers=2, progress=meter)
    assert len(outcome.finished) == 3
    assert meter.reports[-1][0] == 36
    sweep(six[:3], tmp_path / "serial", executor="serial")
    for config in six[:3]:
        same_result(*(open_run(tmp_path / kind / config.name) for kind in ("pool", "serial")))
    assert not list((tmp_path / "pool/logs").glob("*.steps"))
    assert not list((tmp_path / "pool/logs").glob(".stop*"))


def deadly(task):
    """Takes its process down for one seed; for another only the first time."""
    once = task.out / "once"
    if task.config.seed == 1 or (task.config.seed == 2 and not once.exists()):
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return perform(task)


def test_a_dying_worker_takes_no_other_run_with_it(tmp_path, tiny, importable, monkeypatch):
    monkeypatch.setattr(executors, "DEATHS", 2)
    configs = [tiny(**{"training.steps": 5, "seed": seed}) for seed in range(3)]
    (tmp_path / "logs").mkdir()
    tasks = [Task(config, tmp_path) for config in configs]
    work = importable("deadly")
    outcomes = {o.name: o for o in executors.local(tasks, 2, work) if o is not None}
    assert {configs[i].name for i in (0, 2)} == {n for n, o in outcomes.items() if o.ok}
    lost = outcomes[configs[1].name]
    assert lost.kind == "WorkerLost"
    assert "died 2 times" in lost.error


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """Makes a function of this file importable by its name in fresh processes."""

    def provide(name):
        import importlib
        import sys

        source = Path(__file__).read_text("utf-8")
        (tmp_path / "sweep_helpers.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        sys.modules.pop("sweep_helpers", None)
        return getattr(importlib.import_module("sweep_helpers"), name)

    return provide


def test_interrupting_lets_runs_write_checkpoints(tmp_path, tiny):
    config = tiny(**{"training.steps": 100_000})

    class Interrupt(NoMeter):
        interval = 0.0

        def report(self, done, values):
            if done > 0:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep([config], tmp_path, executor="local", workers=1, progress=Interrupt())
    assert (tmp_path / config.name / "checkpoint.pt").exists()
    assert not (tmp_path / config.name / "run.nc").exists()
    assert "stopped after step" in (tmp_path / f"logs/{config.name}.log").read_text()


def test_dask_with_a_worker_killed_equals_serial(tmp_path, tiny, same_result):
    pytest.importorskip("distributed")
    from distributed import Client, LocalCluster

    base = tiny(**{"training.steps": 60, "execution.checkpoint_seconds": 0.0})
    configs = product(base, {"objective.kappa": [0.15, 0.2, 0.3], "seed": [0, 1]})
    out = tmp_path / "dask"
    killed = []
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        workers = client.run(os.getpid)

        def kill_one():
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                if list(out.glob("*/checkpoint.pt")):
                    pid = next(iter(workers.values()))
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
                time.sleep(0.01)

        killer = threading.Thread(target=kill_one)
        killer.start()
        outcome = sweep(configs, out, executor="dask", scheduler=cluster.scheduler_address)
        killer.join()
    assert killed
    assert len(outcome.finished) == 6, str(outcome)
    sweep(configs, tmp_path / "serial", executor="serial")
    for config in configs:
        same_result(*(open_run(tmp_path / kind / config.name) for kind in ("dask", "serial")))


SCHEDULER = """
import time
from distributed import LocalCluster

if __name__ == "__main__":
    cluster = LocalCluster(n_workers=0, dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""


def test_a_dying_scheduler_ends_in_a_sentence(tmp_path, six):
    """Without a worker the runs wait for ever; then the scheduler itself is killed."""
    pytest.importorskip("distributed")
    import dask

    (tmp_path / "scheduler.py").write_text(SCHEDULER, "utf-8")
    words = [sys.executable, str(tmp_path / "scheduler.py")]
    scheduler = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        address = scheduler.stdout.readline().strip()

        class Killer(NoMeter):
            interval = 0.0

            def report(self, done, values):
                scheduler.kill()

        with (
            dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
            pytest.raises(RunError, match=r"scheduler .* is gone; finished runs are kept"),
        ):
            sweep(six, tmp_path / "out", executor="dask", scheduler=address, progress=Killer())
    finally:
        scheduler.kill()
        scheduler.wait()
        scheduler.stdout.close()
    assert not list((tmp_path / "out" / "logs").glob(".stop*"))


def test_no_scheduler(tmp_path, six, monkeypatch):
    monkeypatch.setattr(executors, "CONNECT", 1)
    with pytest.raises(RunError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        sweep(six, tmp_path, executor="dask", scheduler="tcp://127.0.0.1:9")


def test_bad_arguments(tmp_path, six):
    with pytest.raises(ValueError, match=r"`executor` must be serial, local or dask"):
        sweep(six, tmp_path, executor="slurm")
    assert sweep([], tmp_path).outcomes == []
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="could not be written to"):
        sweep(six, tmp_path / "file", executor="serial")
