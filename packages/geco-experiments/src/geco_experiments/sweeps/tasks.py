"""One run as a task for a worker process: it logs to a file and never raises."""

import contextlib
import logging
import multiprocessing
import os
import threading
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from geco_experiments.config import RunConfig
from geco_experiments.runtime.errors import GecoError
from geco_experiments.runtime.progress import NoMeter
from geco_experiments.training.loop import Stopped
from geco_experiments.training.runner import run

__all__ = ["Outcome", "Task", "perform"]

LOGS = "logs"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: The run.
        path: Its `run.nc`, or None if it failed or was stopped.
        error: What went wrong, in one sentence, or an empty string.
        kind: The error's class name: `MissingDataError` and the like.
        log: The file with the whole story.
        steps: Steps of the run.
        stopped: Whether it was stopped after a checkpoint, which is no failure.
    """

    name: str
    path: Path | None
    error: str
    kind: str
    log: Path
    steps: int
    stopped: bool = False

    @property
    def ok(self) -> bool:
        """Whether the run is finished."""
        return self.path is not None


@dataclass(frozen=True)
class Task:
    """What a worker needs to know to make one run.

    Attributes:
        config: The run.
        out: The folder of runs.
        data_home: Where datasets lie.
        threads: Processor threads of the worker; None leaves the configuration's.
        stop_file: The run stops after a checkpoint once this file exists.
    """

    config: RunConfig
    out: Path
    data_home: Path | None = None
    threads: int | None = None
    stop_file: Path | None = None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.config.name

    @property
    def log(self) -> Path:
        """The log of the run."""
        return self.out / LOGS / f"{self.name}.log"

    @property
    def progress_file(self) -> Path:
        """The file that holds the number of steps done while the run is under way."""
        return self.out / LOGS / f"{self.name}.steps"

    def with_threads(self, threads: int) -> "Task":
        """A copy for a worker that has so many threads, unless the run names its own number."""
        own = self.config.execution.threads
        return replace(self, threads=own if own is not None else threads)

    def lost(self, reason: str) -> Outcome:
        """The outcome of a run whose worker could not report."""
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as file:
            file.write(f"{reason}\n")
        return Outcome(self.name, None, reason, "WorkerLost", self.log, self.config.training.steps)


#: set while this process makes a run
working = threading.Event()


class FileMeter(NoMeter):
    """Leaves the number of steps done in a small file, for the process that shows progress."""

    interval = 1.0

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, name: str, total: int, done: int) -> None:
        """Note where the run starts from."""
        self._write(done)

    def report(self, done: int, values: dict[str, float]) -> None:
        """Note how far it is."""
        self._write(done)

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _write(self, done: int) -> None:
        # progress is a convenience: a full disk must not fail the run here
        with contextlib.suppress(OSError):
            self.path.write_text(str(done))


class StopFile:
    """Says whether to stop: a file exists, or the process that asked for the work is gone.

    Looks at most twice a second. Without the second reason the workers of a sweep that was killed
    would go on training, each holding its run's folder.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 0.5
        return is_orphan() or (self.path is not None and self.path.exists())


def is_orphan() -> bool:
    """Whether the process that started this one is gone."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def perform(task: Task) -> Outcome:
    """Make one run, or find it finished; whatever goes wrong is told in the outcome."""
    working.set()
    try:
        return _perform(task)
    finally:
        working.clear()


def leave_with_parent() -> None:
    """End this process once its parent is gone and the run under way has been stopped.

    A worker of a pool otherwise waits for ever for work from a parent that was killed.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        while working.is_set():
            time.sleep(0.1)
        os._exit(1)


def _perform(task: Task) -> Outcome:
    config, steps = task.config, task.config.training.steps
    if task.threads is not None:
        execution = replace(config.execution, threads=task.threads)
        config = replace(config, execution=execution)
    try:
        with _logging(task) as log:
            log.info("start, process %d", os.getpid())
            try:
                path = run(
                    config,
                    task.out,
                    data_home=task.data_home,
                    progress=FileMeter(task.progress_file),
                    stop=StopFile(task.stop_file),
                )
            except (GecoError, Stopped) as error:
                log.error("%s", error)
                raise
            except Exception:
                log.error("%s", traceback.format_exc())
                raise
            log.info("finished")
    except Exception as error:  # noqa: BLE001 (every failure is an outcome, told with its log)
        text = str(error).partition("\n")[0] or type(error).__name__
        stopped = isinstance(error, Stopped)
        return Outcome(task.name, None, text, type(error).__name__, task.log, steps, stopped)
    return Outcome(task.name, path, "", "", task.log, steps)


@contextlib.contextmanager
def _logging(task: Task):  # type: ignore[no-untyped-def]
    task.log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(task.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    log = logging.getLogger("geco_experiments.sweeps.tasks")
    level = log.level
    log.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield log
    finally:
        log.setLevel(level)
        root.removeHandler(handler)
        handler.close()
