"""The commands `geco reproduce` and `geco report`."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from geco_experiments.cli.output import say
from geco_experiments.report import build_report, read_studies
from geco_experiments.report.markdown import markdown
from geco_experiments.reproduce import cores_used, reproduce
from geco_experiments.results.findings import Claim
from geco_experiments.runtime.atomic import write_text_atomic, writing
from geco_experiments.runtime.progress import TqdmMeter
from geco_experiments.studies import STUDIES
from geco_experiments.studies.common.profiles import Profile, laptop_seconds
from geco_experiments.studies.common.study import Study
from geco_experiments.sweeps import unfinished

__all__ = ["expected", "main", "report_main"]

PROFILES = ("smoke", "laptop", "paper")

EXPECTED = {
    "smoke": "about 5 minutes on 2 cores",
    "laptop": "below 2 hours on 2 cores",
    "smoke-images": "about half an hour on 2 cores",
    "paper": "many hours on one GPU, resumable at any moment",
}


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
    cores = cores_used(options.executor, options.workers)
    say(f"profile {profile.name}: {expected(chosen, profile, out, cores)}; {len(chosen)} studies")
    page = reproduce(
        chosen,
        profile,
        out,
        data_home=options.data_home,
        executor=options.executor,
        workers=options.workers,
        say=say,
        progress=TqdmMeter(),
    )
    for claim in _claims(out, chosen):
        say(f"  {claim.verdict:>18}: {claim.claim} ({claim.measured})")
    say(f"done in {(time.monotonic() - start) / 60:.1f} minutes; open {page.resolve()}")
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
    page = build_report(options.folder)
    if options.markdown is not None:
        with writing("the summary", options.markdown):
            write_text_atomic(options.markdown, markdown(read_studies(options.folder)))
    say(f"open {page.resolve()}")
    return 0


def _claims(out: Path, studies: Sequence[Study]) -> list[Claim]:
    return [
        claim
        for study in studies
        for claim in study.claims(xr.load_dataset(out / "studies" / study.name / "data.nc"))
    ]
