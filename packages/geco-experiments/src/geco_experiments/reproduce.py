"""`geco reproduce`: make the runs of every study, measure and draw them, write the page.

The runs of all studies are made first, each once even if several studies read it; a study whose
next runs depend on finished ones is asked again until it adds nothing new. A finished run is
never made again, so an interrupted reproduction goes on where it stopped.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr
from joblib import Parallel, delayed, parallel_config

from geco_experiments.atomic import write_text_atomic, writing
from geco_experiments.config import RunConfig
from geco_experiments.data_home import DataHome
from geco_experiments.datasets import require
from geco_experiments.errors import GecoError, RunError
from geco_experiments.findings import Claim
from geco_experiments.progress import Meter, TqdmMeter
from geco_experiments.report import build_report, read_studies
from geco_experiments.results import write_dataset
from geco_experiments.studies import STUDIES
from geco_experiments.studies.base import Profile, Runs, Study, finish_study
from geco_experiments.studies.grid import laptop_seconds
from geco_experiments.studies.plane import bounded_datasets, limits_of
from geco_experiments.summary import markdown
from geco_experiments.sweeps import ExecutorName, sweep, unfinished

__all__ = ["main", "report_main", "reproduce"]

PROFILES = ("smoke", "laptop", "paper")
EXPECTED = {
    "smoke": "about 5 minutes on 2 cores",
    "laptop": "below 2 hours on 2 cores",
    "smoke-images": "about half an hour on 2 cores",
    "paper": "many hours on one GPU, resumable at any moment",
}


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
    wanted = {study.name: list(study.configs(profile)) for study in studies}
    made: set[str] = set()
    opened: dict[Path, xr.Dataset] = {}
    while new := _unmade(wanted, made):
        say(f"{len(new)} runs to make or find in {folder}")
        needed = (config.dataset.name for config in unfinished(new, folder))
        require(needed, DataHome.resolve(data_home))
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
            configs += [config for config in further if config.name not in known]
    everything = _unmade(wanted, set())
    for study in studies:
        if study.reads_all:
            wanted[study.name] = everything
    cores = _cores(executor, workers)
    # the limits first: several studies read the same ones
    bounded = [study for study in studies if study.bounded]
    limits = [
        delayed(limits_of)(dataset, profile, out, data_home)
        for dataset in bounded_datasets(c for study in bounded for c in wanted[study.name])
    ]
    jobs = [
        delayed(_finish)(
            study,
            # what is open here is not sent to other processes
            Runs(folder, wanted[study.name], opened if cores == 1 else None),
            profile,
            out / "studies" / study.name,
            data_home,
        )
        for study in studies
    ]
    # one thread each: the pool takes the cores, and small matrices are slower on several threads
    with parallel_config("loky", n_jobs=min(cores, len(jobs)), inner_max_num_threads=1):
        if limits:
            say(f"limits of {len(limits)} datasets")
            Parallel()(limits)
        for name, seconds in Parallel(return_as="generator_unordered")(jobs):
            say(f"{name}: measured and drawn in {seconds:.0f} s")
    return build_report(out)


def _finish(
    study: Study, runs: Runs, profile: Profile, folder: Path, data_home: Path | None
) -> tuple[str, float]:
    """Measure and draw one study, in a process of its own where there are several."""
    start = time.monotonic()
    finish_study(study, runs, profile, folder, data_home=data_home, save=write_dataset)
    return study.name, time.monotonic() - start


def _cores(executor: str, workers: int | None) -> int:
    """How many processes work at once."""
    return 1 if executor == "serial" else workers or os.cpu_count() or 1


def expected(studies: Sequence[Study], profile: Profile, out: Path, workers: int) -> str:
    """About how long the runs that are not finished yet will take, in words."""
    if profile.name != "laptop" or profile.device != "cpu":
        return EXPECTED[profile.sizes]
    seconds, seen = 0.0, set()
    for study in studies:
        left = unfinished(study.configs(profile), out / "runs")
        new = [config for config in left if config.name not in seen]
        seen |= {config.name for config in new}
        seconds += sum(map(laptop_seconds, new))
        seconds += (study.growth - 1) * sum(map(laptop_seconds, left))
    minutes = seconds / 60 / workers
    span = f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
    return f"about {span} of training on {workers} cores, some more for measuring and drawing"


def _unmade(wanted: dict[str, list[RunConfig]], made: set[str]) -> list[RunConfig]:
    """The configurations not made yet, each once, in the order of the studies."""
    new = {config.name: config for configs in wanted.values() for config in configs}
    return [config for name, config in new.items() if name not in made]


def main(argv: Sequence[str] | None = None) -> int:
    """The command `geco reproduce`."""
    parser = argparse.ArgumentParser(
        prog="geco reproduce", description="Make every figure and table, and one page of them."
    )
    parser.add_argument("--profile", choices=PROFILES, default="smoke")
    parser.add_argument(
        "--study",
        action="append",
        choices=[study.name for study in STUDIES],
        metavar="NAME",
        help=f"only this study (may be repeated): {', '.join(s.name for s in STUDIES)}",
    )
    parser.add_argument("--dataset", help="use this dataset where a study has the choice")
    parser.add_argument("--out", type=Path, help="results folder (default: results/PROFILE)")
    parser.add_argument("--data-home", type=Path, help="datasets (default: GECO_DATA_HOME)")
    parser.add_argument("--executor", choices=["serial", "local", "dask"], default="local")
    parser.add_argument("--workers", type=int, help="processes of the pool (default: cores)")
    parser.add_argument("--device", default="cpu", help="torch device of the runs")
    options = parser.parse_args(argv)
    out = options.out or Path("results") / options.profile
    chosen = [s for s in STUDIES if options.study is None or s.name in options.study]
    profile = Profile(options.profile, dataset=options.dataset, device=options.device)
    start = time.monotonic()
    cores = _cores(options.executor, options.workers)
    _say(f"profile {profile.name}: {expected(chosen, profile, out, cores)}; {len(chosen)} studies")
    try:
        page = reproduce(
            chosen,
            profile,
            out,
            data_home=options.data_home,
            executor=options.executor,
            workers=options.workers,
            say=_say,
            progress=TqdmMeter(),
        )
    except (GecoError, ValueError) as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from here")
        return 130
    for claim in _claims(out, chosen):
        _say(f"  {claim.verdict:>18}: {claim.claim} ({claim.measured})")
    _say(f"done in {(time.monotonic() - start) / 60:.1f} minutes; open {page.resolve()}")
    return 0


def report_main(argv: Sequence[str] | None = None) -> int:
    """The command `geco report DIR`."""
    parser = argparse.ArgumentParser(
        prog="geco report", description="Write index.html from the studies and runs of a folder."
    )
    parser.add_argument("folder", type=Path, help="a folder that reproduce or run wrote to")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="also write the claims and tables there"
    )
    options = parser.parse_args(argv)
    try:
        page = build_report(options.folder)
        if options.markdown is not None:
            with writing("the summary", options.markdown):
                write_text_atomic(options.markdown, markdown(read_studies(options.folder)))
    except GecoError as error:
        _say(str(error))
        return 2
    _say(f"open {page.resolve()}")
    return 0


def _claims(out: Path, studies: Sequence[Study]) -> list[Claim]:
    return [
        claim
        for study in studies
        for claim in study.claims(xr.load_dataset(out / "studies" / study.name / "data.nc"))
    ]


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
