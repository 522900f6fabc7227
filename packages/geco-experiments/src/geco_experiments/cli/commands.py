"""The commands `geco run`, `geco sweep` and `geco show`."""

import argparse
import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
import xarray as xr

from geco_experiments import results
from geco_experiments.cli.options import meter, parse
from geco_experiments.cli.output import say, tell, tell_json
from geco_experiments.config import RunConfig, field_paths
from geco_experiments.datasets import require
from geco_experiments.datasets.home import DataHome
from geco_experiments.runtime.distributed import process_group
from geco_experiments.runtime.errors import GecoError, RunError
from geco_experiments.runtime.words import spanned
from geco_experiments.sweeps import ExecutorName, identified, product, sweep, unfinished
from geco_experiments.training import Stopped, run

__all__ = ["run_main", "show_main", "summary", "sweep_main"]

Config = Annotated[RunConfig, tyro.conf.arg(name="")]
ConfigFile = Annotated[Path | None, tyro.conf.arg(name="config", metavar="FILE")]


@dataclass(frozen=True)
class RunCommand:
    """Train one model; started again, it goes on where it stopped or finds the run finished."""

    config: Config = field(default_factory=RunConfig)
    config_file: ConfigFile = None
    """A configuration to begin with, such as the config.json of a run; options change it."""
    out: Path = Path("runs")
    """Folder of runs; this one gets a subfolder named after its configuration."""
    data_home: Path | None = None
    """Folder of datasets (None: the environment variable GECO_DATA_HOME)."""
    quiet: bool = False
    """No progress and no messages but errors."""
    json: bool = False
    """The result as one line of JSON."""


def run_main(argv: Sequence[str]) -> int:
    """The command `geco run`: the path of the result on stdout."""
    command = parse(RunCommand, argv, "geco run")
    with process_group(command.config.execution.device) as ranks, _stop_signals() as stopped:
        try:
            path = run(
                command.config,
                command.out,
                data_home=command.data_home,
                progress=meter(command.quiet or not ranks.is_main),
                stop=stopped,
            )
        except Stopped as error:
            say(f"{error}; the same command goes on from here")
            return 130
        if ranks.is_main:
            _told([path], command.quiet, command.json)
    return 0


@dataclass(frozen=True)
class SweepCommand:
    """Train every combination of the values given with --vary."""

    vary: tuple[str, ...]
    """FIELD=VALUE,VALUE,... with a field's dotted path, such as objective.kappa=0.06,0.1."""
    config: Config = field(default_factory=RunConfig)
    config_file: ConfigFile = None
    """A configuration to begin with, such as the config.json of a run; options change it."""
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
    """No progress and no messages but errors."""
    json: bool = False
    """The results as one line of JSON."""


def sweep_main(argv: Sequence[str]) -> int:
    """The command `geco sweep`: the paths of the results on stdout."""
    command = parse(SweepCommand, argv, "geco sweep")
    try:
        configs = product(command.config, axes(command.vary))
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error
    home = DataHome.resolve(command.data_home)
    configs = identified(configs, home)
    if command.scheduler is None:  # else the workers may have folders of their own
        require((c.dataset for c in unfinished(configs, command.out)), home)
    try:
        outcome = sweep(
            configs,
            command.out,
            executor=command.executor,
            workers=command.workers,
            scheduler=command.scheduler,
            data_home=command.data_home,
            progress=meter(command.quiet),
        )
    except ValueError as error:
        raise RunError(str(error)) from error
    _told(outcome.finished, True, command.json)
    if not command.quiet or outcome.failed:
        say(str(outcome))
    return 1 if outcome.failed else 0


def axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """The values of every field that is varied; a field named twice has both lots of values.

    Raises:
        ValueError: for a text that is not FIELD=VALUE,VALUE,...
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        path, values = _axis(text)
        known = found.setdefault(path, [])
        known += [value for value in values if value not in known]
    return found


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
    except (json.JSONDecodeError, RecursionError):
        return {"None": None, "True": True, "False": False}.get(word, word)


def show_main(argv: Sequence[str]) -> int:
    """The command `geco show`."""
    parser = argparse.ArgumentParser(
        prog="geco show", description="List the finished runs of a folder with their numbers."
    )
    parser.add_argument("folder", type=Path, help="a folder of runs, or one run")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(argv)
    paths = results.find(options.folder)
    if not paths:
        say(f"no finished run in {options.folder}: make some with `geco run`")
        return 2
    damaged, facts = 0, []
    for path in paths:
        try:
            dataset = results.open_run(path)
            line = summary(dataset)
        except GecoError as error:  # the others are shown all the same
            say(str(error))
            damaged += 1
            continue
        if options.json:
            facts.append(_facts(path, dataset))
        else:
            tell(line)
    if options.json:
        tell_json(facts)
    return 2 if damaged else 0


def summary(dataset: xr.Dataset) -> str:
    """One line on a run: its name and what it reached.

    Raises:
        SchemaError: if the run lacks what every run has.
    """
    objective = results.config_of(dataset).objective
    in_kappa = objective.name == "geco" and objective.constraint == "re"
    asked = np.array(objective.tolerances)
    parts = []
    for split, label in (("train", "training"), ("test", "held out")):
        error, kl = (results.finals(dataset, name, split) for name in ("rms_error", "kl"))
        text = f"{label} RMS error {spanned(error, '.4f')}"
        if in_kappa and asked.size == error.size:
            text += f" ({spanned(error / asked, '.3f')} kappa)"
        parts.append(f"{text}, KL {spanned(kl, '.2f')} nats")
    return f"{dataset.attrs['name']}: " + "; ".join(parts)


def _facts(path: Path, dataset: xr.Dataset) -> dict[str, Any]:
    finals: dict[str, Any] = {}
    for name in ("rms_error", "kl"):
        for split in ("train", "test"):
            values = results.finals(dataset, name, split).tolist()
            finals[f"{name}_{split}"] = values if "kappa" in dataset.dims else values[0]
    labels = {key: dataset.attrs.get(key) for key in ("name", "dataset", "model", "objective")}
    config = results.config_of(dataset)
    over = "kappa" in dataset.dims
    numbers = {"kappa": dataset["kappa"].values.tolist() if over else config.kappa}
    numbers["seed"] = config.seed
    return {"path": str(path), **labels, **numbers, **finals}


def _told(paths: Sequence[Path], quiet: bool, as_json: bool) -> None:
    if as_json:
        found = [_facts(path, results.open_run(path)) for path in paths]
        tell_json(found[0] if len(found) == 1 else found)
        return
    for path in paths:
        tell(str(path))
        if not quiet:
            say(summary(results.open_run(path)))


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
