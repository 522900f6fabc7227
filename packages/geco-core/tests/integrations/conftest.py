"""The recipes in `examples/frameworks`, imported as scripts and run as several processes.

The frameworks have a nox session of their own, `integrations`; elsewhere these tests are skipped.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "frameworks"


def pytest_collection_modifyitems(items):
    """The frameworks warn about things of their own."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    """Imports a recipe by its framework, in an empty folder; skips where the framework is not."""

    def load(framework: str, module: str | None = None):
        if os.environ.get("GECO_REQUIRE_FRAMEWORKS"):
            importlib.import_module(module or framework)
        else:
            pytest.importorskip(module or framework, reason=f"{framework} is not installed")
        if not FOLDER.is_dir():
            pytest.skip(f"the recipes are not installed, only in the repository: no {FOLDER}")
        monkeypatch.syspath_prepend(str(FOLDER))
        monkeypatch.chdir(tmp_path)
        return importlib.import_module(f"with_{framework}")

    return load


@pytest.fixture
def two_tables(tmp_path):
    """Runs lines of Python that make an `objective` as two ranks; returns the ranks' tables."""

    def run(*lines: str) -> list[list[list[float]]]:
        body = [
            "import json, os, pathlib",
            *lines,
            "table = objective.multipliers.table.double().tolist()",
            "pathlib.Path('rank' + os.environ['RANK']).write_text(json.dumps(table))",
        ]
        head = ["import sys", f"sys.path.insert(0, {str(FOLDER)!r})", "if __name__ == '__main__':"]
        script = tmp_path / "ranks.py"
        script.write_text("\n".join([*head, *(f"    {line}" for line in body)]), "utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"),
                *("--master-addr=127.0.0.1", f"--master-port={port}", str(script)),
            ],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return [json.loads((tmp_path / f"rank{rank}").read_text()) for rank in (0, 1)]

    return run


@pytest.fixture
def ascents():
    """How many ascents the multipliers of an objective have made."""

    def count(objective) -> int:
        rows = objective.multipliers.update.rows
        return int(objective.multipliers.table[rows.index("ascents"), 0])

    return count


@pytest.fixture
def reached():
    """Whether an objective of one RE constraint came to the error that was asked for."""

    def within(objective, tolerance: float = 0.05) -> bool:
        kappa = objective.constraints["constraint"].kappa
        return abs(float(objective.info.moving_average)) < 2 * tolerance * kappa**2

    return within
