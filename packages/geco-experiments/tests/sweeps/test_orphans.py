"""Workers of a sweep that was killed stop by themselves and leave their runs resumable."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
from geco_experiments.config import RunConfig, replace
from geco_experiments.sweeps import sweep
import sys

if __name__ == "__main__":
    long = {"training.steps": 1_000_000, "model.name": "linear-vae", "model.latents": 2}
    configs = [replace(RunConfig(), {**long, "seed": seed}) for seed in range(2)]
    sweep(configs, sys.argv[1], executor="local", workers=2)
"""


def children(pid):
    """Process numbers of the children of a process that still runs."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(pid) and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers through /proc")
def test_killed_sweeps_leave_no_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, "utf-8")
    out = tmp_path / "runs"
    parent = subprocess.Popen([sys.executable, str(script), str(out)], start_new_session=True)
    workers = []
    try:
        assert until(lambda: len(list(out.glob("*/config.json"))) == 2), "no run has begun"
        workers = children(parent.pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert workers
        assert until(lambda: not any(map(running, workers))), "a worker goes on without its parent"
        assert until(lambda: len(list(out.glob("*/checkpoint.pt"))) == 2, 5), "nothing to resume"
    finally:
        for pid in (parent.pid, *workers):
            if running(pid):
                os.kill(pid, signal.SIGKILL)
