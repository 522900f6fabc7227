"""Many runs: each made once, whatever was done before, and one failure never stops the rest."""

import dataclasses
import itertools
import math
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from geco_experiments import datasets
from geco_experiments.config import RunConfig, replace
from geco_experiments.datasets.home import DataHome
from geco_experiments.results.store import FILE
from geco_experiments.runtime.atomic import writing
from geco_experiments.runtime.progress import Meter, NoMeter
from geco_experiments.runtime.words import counted
from geco_experiments.sweeps import executors
from geco_experiments.sweeps.tasks import LOGS, Outcome, Task

__all__ = ["ExecutorName", "SweepOutcome", "identified", "product", "sweep", "unfinished"]

ExecutorName = Literal["serial", "local", "dask"]


@dataclass
class SweepOutcome:
    """What became of every run of a sweep."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def finished(self) -> list[Path]:
        """The results, in the order in which they came."""
        return [outcome.path for outcome in self.outcomes if outcome.path is not None]

    @property
    def failed(self) -> list[Outcome]:
        """The runs that failed."""
        return [o for o in self.outcomes if not (o.ok or o.stopped)]

    @property
    def stopped(self) -> list[Outcome]:
        """The runs that were stopped and can go on."""
        return [o for o in self.outcomes if o.stopped]

    def __str__(self) -> str:
        lines = [f"{len(self.finished)} of {counted(len(self.outcomes), 'run')} finished"]
        for outcome in self.failed:
            lines.append(f"failed: {outcome.name}: {outcome.error} (log: {outcome.log})")
        if self.stopped:
            lines.append(f"{len(self.stopped)} stopped; the same command goes on with them")
        return "\n".join(lines)


def product(base: RunConfig, axes: Mapping[str, Sequence[Any]]) -> list[RunConfig]:
    """Every combination of values along some configuration fields, named by dotted path.

    Raises:
        ValueError: if a path names no field or a value is out of range.
    """
    combinations = itertools.product(*axes.values())
    return [replace(base, dict(zip(axes, values, strict=True))) for values in combinations]


def identified(configs: Iterable[RunConfig], home: DataHome) -> list[RunConfig]:
    """The configurations with their data named by content, each dataset read once.

    Raises:
        DataError: if own data are missing or cannot be used.
    """
    known: dict[tuple[Any, str], RunConfig] = {}
    found = []
    for config in configs:
        key = (config.dataset, config.model.name)
        if key not in known:
            known[key] = datasets.identify(config, home)
        like = known[key]
        model = dataclasses.replace(config.model, name=like.model.name)
        found.append(dataclasses.replace(config, dataset=like.dataset, model=model))
    return found


def unfinished(configs: Iterable[RunConfig], out: str | os.PathLike[str]) -> list[RunConfig]:
    """Those of the runs that have no result in the folder yet."""
    return [config for config in configs if not (Path(out) / config.name / FILE).is_file()]


def sweep(
    configs: Iterable[RunConfig],
    out: str | os.PathLike[str],
    *,
    executor: ExecutorName = "local",
    workers: int | None = None,
    scheduler: str | None = None,
    data_home: str | os.PathLike[str] | None = None,
    progress: Meter | None = None,
) -> SweepOutcome:
    """Make all runs that are not finished yet.

    Each run is made by `training.run`: finished ones are skipped, interrupted ones go on. The
    number of processor threads per worker may differ between executors; torch then sums in
    another order, so results agree between executors bit for bit only at equal
    `execution.threads`.

    Args:
        configs: The runs; equal ones are made once.
        out: The folder of runs, seen by all workers.
        executor: `serial`, `local` (a pool of processes) or `dask`.
        workers: Processes of the pool or of a local Dask cluster; None: one per core.
        scheduler: Address of a Dask scheduler; None makes a local cluster.
        data_home: Where datasets lie; None asks the environment.
        progress: Told the steps done over all runs, with an estimate of the time that is left.

    Returns:
        What became of every run; failures are told there and not raised.

    Raises:
        RunError: if the folder cannot be written to or there is no such cluster.
        KeyboardInterrupt: passed on after the runs under way have written checkpoints.
    """
    if executor not in ("serial", "local", "dask"):
        raise ValueError(f"`executor` must be serial, local or dask; got {executor!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"`workers` must be 1 or more; got {workers}")
    configs = identified(configs, DataHome.resolve(data_home))
    out = Path(out).absolute()
    with writing("the sweep", out):
        (out / LOGS).mkdir(parents=True, exist_ok=True)
    stop_file = out / LOGS / f".stop-{uuid.uuid4().hex}"
    home = None if data_home is None else Path(data_home).absolute()
    tasks = [
        Task(config, out, home, stop_file=stop_file)
        for config in {config.name: config for config in configs}.values()
    ]
    result = SweepOutcome()
    if not tasks:
        return result
    # finished runs first: they take no time, and the estimate is then about the others
    tasks.sort(key=lambda task: not (out / task.name / FILE).is_file())
    match executor:
        case "serial":
            stream = executors.serial(tasks)
        case "local":
            stream = executors.local(tasks, workers)
        case "dask":
            stream = executors.dask(tasks, scheduler, workers)
    meter = progress if progress is not None else NoMeter()
    watch = _Watch(tasks, meter)
    try:
        for outcome in stream:
            if outcome is not None:
                result.outcomes.append(outcome)
            watch.look(result)
    except KeyboardInterrupt:
        # it may have come outside of the executor, which then still waits for its workers
        stop_file.touch()
        stream.close()
        raise
    finally:
        meter.close()
        stop_file.unlink(missing_ok=True)
    return result


class _Watch:
    """Adds up the steps of all runs, and estimates how long the rest will take.

    A step of one model may cost a hundred times that of another, so the estimate keeps one speed
    for each pair of dataset and model, from the runs seen so far.
    """

    def __init__(self, tasks: Sequence[Task], meter: Meter) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.meter = meter
        self._last = -math.inf
        self._speed: dict[tuple[str, str], float] = {}
        self._seen: dict[str, tuple[float, int]] = {}
        steps = {task.name: task.config.training.steps for task in tasks}
        done = sum(steps[t.name] for t in tasks if (t.out / t.name / FILE).is_file())
        meter.start(counted(len(tasks), "run"), sum(steps.values()), done)

    def look(self, result: SweepOutcome) -> None:
        """Report, if it is time."""
        now = time.monotonic()
        if now - self._last < self.meter.interval and len(result.outcomes) < len(self.tasks):
            return
        self._last = now
        over = {outcome.name for outcome in result.outcomes}
        done, active, left = 0, 0, []
        for name, task in self.tasks.items():
            total = task.config.training.steps
            steps = total if name in over else _steps_done(task)
            done += steps or 0
            if name not in over:
                active += steps is not None
                left.append((_kind(task), total - (steps or 0)))
                if steps is not None:
                    self._clock(task, now, steps)
        values: dict[str, float] = {
            "finished": len(result.finished),
            "failed": len(result.failed),
        }
        if self._speed and active:
            mean = sum(self._speed.values()) / len(self._speed)
            seconds = sum(steps * self._speed.get(kind, mean) for kind, steps in left) / active
            values["minutes left"] = seconds / 60
        self.meter.report(done, values)

    def _clock(self, task: Task, now: float, steps: int) -> None:
        start, first = self._seen.setdefault(task.name, (now, steps))
        if steps > first:
            self._speed[_kind(task)] = (now - start) / (steps - first)


def _kind(task: Task) -> tuple[str, str]:
    return task.config.dataset.name, task.config.model.name


def _steps_done(task: Task) -> int | None:
    try:
        return int(task.progress_file.read_text())
    except (OSError, ValueError):
        return None
