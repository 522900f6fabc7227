"""`geco reproduce`: make the runs of every study, measure and draw them, write the page.

The runs of all studies are made first, each once even if several studies read it; a study whose
next runs depend on finished ones is asked again until it adds nothing new. A finished run is
never made again, so an interrupted reproduction goes on where it stopped.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr
from joblib import Parallel, delayed, parallel_config

from geco_experiments.config import DatasetConfig, RunConfig
from geco_experiments.datasets import require
from geco_experiments.datasets.home import DataHome
from geco_experiments.report import build_report
from geco_experiments.results.store import write_dataset
from geco_experiments.runtime.errors import RunError
from geco_experiments.runtime.processes import end_with_parent
from geco_experiments.runtime.progress import Meter
from geco_experiments.runtime.words import counted
from geco_experiments.studies.common.information_plane import bounded_datasets, limits_of
from geco_experiments.studies.common.profiles import Profile
from geco_experiments.studies.common.study import Runs, Study, finish_study
from geco_experiments.sweeps import ExecutorName, identified, sweep, unfinished

__all__ = ["cores_used", "reproduce"]


def reproduce(
    studies: Sequence[Study],
    profile: Profile,
    out: Path,
    *,
    data_home: Path | None = None,
    executor: ExecutorName = "local",
    workers: int | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Meter | None = None,
) -> Path:
    """Make everything that the given studies need and write the page.

    Args:
        studies: which studies.
        profile: how large their runs are.
        out: the results folder; `runs/`, `studies/` and `index.html` are made in it.
        data_home: where the datasets lie (None: `GECO_DATA_HOME`).
        executor: `serial`, `local` (a pool of processes) or `dask`.
        workers: processes of the pool (None: one for each core).
        say: told one line at a time what goes on.
        progress: told the steps done over all runs, with an estimate of the time left.

    Returns:
        The path of the page.

    Raises:
        MissingDataError: a dataset is not on this machine; found before any run starts.
        RunError: a run failed; the rest were still made, and the message names the logs.
    """
    folder = out / "runs"
    home = DataHome.resolve(data_home)
    wanted = {study.name: identified(study.configs(profile), home) for study in studies}
    made: set[str] = set()
    opened: dict[Path, xr.Dataset] = {}
    while new := _unmade(wanted, made):
        say(f"{counted(len(new), 'run')} to make or find in {folder}")
        needed = (config.dataset for config in unfinished(new, folder))
        require(needed, home)
        outcome = sweep(
            new,
            folder,
            executor=executor,
            workers=workers,
            data_home=data_home,
            progress=progress,
        )
        if outcome.failed or outcome.stopped:
            raise RunError(str(outcome))
        made |= {config.name for config in new}
        for study in studies:
            configs = wanted[study.name]
            known = {config.name for config in configs}
            further = study.follow_up(Runs(folder, configs, opened), profile, data_home=data_home)
            configs += [c for c in identified(further, home) if c.name not in known]
    everything = _unmade(wanted, set())
    for study in studies:
        if study.reads_all:
            wanted[study.name] = everything
    cores = cores_used(executor, workers)
    parent = os.getpid()
    # the limits first: several studies read the same ones
    bounded = [study for study in studies if study.bounded]
    limits = [
        delayed(_limit)(dataset, profile, out, data_home, parent)
        for dataset in bounded_datasets(
            (c for study in bounded for c in wanted[study.name]), data_home
        )
    ]
    jobs = [
        delayed(_finish)(
            study,
            # what is open here is not sent to other processes
            Runs(folder, wanted[study.name], opened if cores == 1 else None),
            profile,
            out / "studies" / study.name,
            data_home,
            parent,
        )
        for study in studies
    ]
    # one thread each: the pool takes the cores, and small matrices are slower on several threads
    with parallel_config("loky", n_jobs=min(cores, len(jobs)), inner_max_num_threads=1):
        if limits:
            say(f"limits of {counted(len(limits), 'dataset')}")
            Parallel()(limits)
        for name, seconds in Parallel(return_as="generator_unordered")(jobs):
            say(f"{name}: measured and drawn in {seconds:.0f} s")
    return build_report(out, opened=opened)


def _limit(
    dataset: DatasetConfig, profile: Profile, out: Path, data_home: Path | None, parent: int
) -> None:
    end_with_parent(parent)
    limits_of(dataset, profile, out, data_home)


def _finish(
    study: Study,
    runs: Runs,
    profile: Profile,
    folder: Path,
    data_home: Path | None,
    parent: int,
) -> tuple[str, float]:
    """Measure and draw one study, in a process of its own where there are several."""
    end_with_parent(parent)
    start = time.monotonic()
    finish_study(study, runs, profile, folder, data_home=data_home, save=write_dataset)
    return study.name, time.monotonic() - start


def cores_used(executor: str, workers: int | None) -> int:
    """How many processes work at once."""
    return 1 if executor == "serial" else workers or os.cpu_count() or 1


def _unmade(wanted: dict[str, list[RunConfig]], made: set[str]) -> list[RunConfig]:
    """The configurations not made yet, each once, in the order of the studies."""
    new = {config.name: config for configs in wanted.values() for config in configs}
    return [config for name, config in new.items() if name not in made]
