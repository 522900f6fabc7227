"""The commands `geco run`, `geco sweep` and `geco show`."""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
import xarray as xr

from geco_experiments import results
from geco_experiments.cli.output import say
from geco_experiments.config import RunConfig, field_paths
from geco_experiments.datasets import require
from geco_experiments.datasets.home import DataHome
from geco_experiments.runtime.distributed import process_group
from geco_experiments.runtime.progress import NoMeter, TqdmMeter
from geco_experiments.sweeps import ExecutorName, product, sweep, unfinished
from geco_experiments.training import Stopped, run

__all__ = ["run_main", "show_main", "sweep_main"]

Config = Annotated[RunConfig, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class RunCommand:
    """Train one model; started again, it goes on where it stopped or finds the run finished."""

    config: Config = field(default_factory=RunConfig)
    out: Path = Path("runs")
    """Folder of runs; this one gets a subfolder named after its configuration."""
    data_home: Path | None = None
    """Folder of datasets (None: the environment variable GECO_DATA_HOME)."""
    quiet: bool = False
    """No progress bar."""


def run_main(argv: Sequence[str]) -> int:
    """The command `geco run`."""
    command = tyro.cli(RunCommand, args=argv, prog="geco run")
    with process_group(command.config.execution.device) as ranks, _stop_signals() as stopped:
        show = ranks.is_main and not command.quiet
        try:
            path = run(
                command.config,
                command.out,
                data_home=command.data_home,
                progress=TqdmMeter() if show else NoMeter(),
                stop=stopped,
            )
        except Stopped as error:
            say(f"{error}; the same command goes on from here")
            return 130
        if ranks.is_main:
            say(str(path))
            say(summary(results.open_run(path)))
    return 0


@dataclass(frozen=True)
class SweepCommand:
    """Train every combination of the values given with --vary."""

    vary: tuple[str, ...]
    """FIELD=VALUE,VALUE,... with a field's dotted path, such as objective.kappa=0.06,0.1."""
    config: Config = field(default_factory=RunConfig)
    out: Path = Path("runs")
    """Folder of runs."""
    executor: ExecutorName = "local"
    """serial: in this process; local: a pool of processes; dask: a Dask cluster."""
    workers: int | None = None
    """Processes of the pool or of a local Dask cluster (None: one per core)."""
    scheduler: str | None = None
    """Address of a Dask scheduler (None: a local cluster)."""
    data_home: Path | None = None
    """Folder of datasets (None: the environment variable GECO_DATA_HOME)."""
    quiet: bool = False
    """No progress bar."""


def sweep_main(argv: Sequence[str]) -> int:
    """The command `geco sweep`."""
    command = tyro.cli(SweepCommand, args=argv, prog="geco sweep")
    try:
        configs = product(command.config, dict(_axis(text) for text in command.vary))
    except (TypeError, ValueError) as error:
        say(str(error))
        return 2
    if command.scheduler is None:  # else the workers may have folders of their own
        home = DataHome.resolve(command.data_home)
        require((c.dataset.name for c in unfinished(configs, command.out)), home)
    outcome = sweep(
        configs,
        command.out,
        executor=command.executor,
        workers=command.workers,
        scheduler=command.scheduler,
        data_home=command.data_home,
        progress=NoMeter() if command.quiet else TqdmMeter(),
    )
    say(str(outcome))
    return 1 if outcome.failed else 0


def _axis(text: str) -> tuple[str, list[Any]]:
    path, equals, values = text.partition("=")
    if not equals or not values:
        raise ValueError(f"`--vary` must be FIELD=VALUE,VALUE,...; got {text!r}")
    return path, [_value(path, word) for word in values.split(",")]


def _value(path: str, word: str) -> Any:
    if field_paths().get(path) is str:
        return word
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        return {"None": None, "True": True, "False": False}.get(word, word)


def show_main(argv: Sequence[str]) -> int:
    """The command `geco show`."""
    parser = argparse.ArgumentParser(
        prog="geco show", description="List the finished runs of a folder with their numbers."
    )
    parser.add_argument("folder", type=Path, help="a folder of runs, or one run")
    options = parser.parse_args(argv)
    paths = results.find(options.folder)
    if not paths:
        say(f"no finished run in {options.folder}: make some with `geco run`")
        return 2
    for path in paths:
        say(summary(results.open_run(path)), stream=sys.stdout)
    return 0


def summary(dataset: xr.Dataset) -> str:
    """One line on a run: its name and what it reached."""
    error = dataset["final_rms_error"]
    kl = dataset["final_kl"]
    objective = results.config_of(dataset).objective
    in_kappa = objective.name == "geco" and objective.constraint == "re"
    parts = []
    for split, label in (("train", "training"), ("test", "held out")):
        text = f"{label} RMS error {float(error.sel(split=split)):.4f}"
        if in_kappa:
            text += f" ({float(error.sel(split=split)) / objective.kappa:.3f} kappa)"
        parts.append(f"{text}, KL {float(kl.sel(split=split)):.2f} nats")
    return f"{dataset.attrs['name']}: " + "; ".join(parts)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask for a checkpoint first; a second one ends the program at once."""
    asked = threading.Event()
    previous: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(number, previous[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for asked_by, handler in previous.items():
            signal.signal(asked_by, handler)
