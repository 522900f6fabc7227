"""The command `geco reproduce`."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import xarray as xr

from geco_experiments.cli.options import meter
from geco_experiments.cli.output import say, tell
from geco_experiments.config import DatasetConfig
from geco_experiments.reproduce import cores_used, reproduce
from geco_experiments.results.findings import Claim
from geco_experiments.runtime.errors import RunError
from geco_experiments.runtime.words import counted
from geco_experiments.studies import choose, names
from geco_experiments.studies.common.profiles import Profile, laptop_seconds
from geco_experiments.studies.common.study import Study, put_off
from geco_experiments.sweeps import unfinished

__all__ = ["expected", "main"]

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
    cores = counted(workers, "core")
    return f"about {span} of training on {cores}, some more for measuring and drawing"


def main(argv: Sequence[str] | None = None) -> int:
    """The command `geco reproduce`."""
    parser = argparse.ArgumentParser(
        prog="geco reproduce", description="Make every figure and table, and one page of them."
    )
    parser.add_argument("--profile", choices=PROFILES, default="smoke")
    parser.add_argument(
        "--study",
        action="append",
        choices=names(),
        metavar="NAME",
        help=f"only this study (may be repeated): {', '.join(names())}",
    )
    parser.add_argument("--dataset", help="use this dataset where a study has the choice")
    parser.add_argument("--out", type=Path, help="results folder (default: results/PROFILE)")
    parser.add_argument("--data-home", type=Path, help="datasets (default: GECO_DATA_HOME)")
    parser.add_argument("--executor", choices=["serial", "local", "dask"], default="local")
    parser.add_argument("--workers", type=positive, help="processes of the pool (default: cores)")
    parser.add_argument(
        "--device",
        help="torch device of the runs (default: cpu; paper: the GPU that must be there)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    options = parser.parse_args(argv)
    if options.dataset is not None:
        try:
            DatasetConfig(name=options.dataset)
        except ValueError as error:
            raise RunError(f"--dataset: {error}") from error
    out = options.out or Path("results") / options.profile
    device = _device(options.profile, options.device)
    profile = Profile(options.profile, dataset=options.dataset, device=device)
    try:
        chosen, later = choose(options.study, profile)
    except ValueError as error:
        raise RunError(str(error)) from error
    for study in later:
        put_off(study, out / "studies" / study.name)
    hear = (lambda text: None) if options.quiet else say
    start = time.monotonic()
    cores = cores_used(options.executor, options.workers)
    count = counted(len(chosen), "study", "studies")
    hear(f"profile {profile.name}: {expected(chosen, profile, out, cores)}; {count}")
    page = reproduce(
        chosen,
        profile,
        out,
        data_home=options.data_home,
        executor=options.executor,
        workers=options.workers,
        say=hear,
        progress=meter(options.quiet),
    )
    for claim in _claims(out, chosen):
        hear(f"  {claim.verdict:>18}: {claim.claim} ({claim.measured})")
    hear(f"done in {(time.monotonic() - start) / 60:.1f} minutes; open the page:")
    tell(str(page.resolve()))
    return 0


def positive(text: str) -> int:
    """A number of workers."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more; got {text}")
    return number


def _device(profile: str, asked: str | None) -> str:
    """The device of the runs; the sizes of the profile paper are not for a processor."""
    if asked is not None or profile != "paper":
        return asked or "cpu"
    if not torch.cuda.is_available():
        raise RunError(
            "the profile paper is made for a GPU and there is none: choose --profile laptop, or "
            "--device cpu if you have weeks"
        )
    return "cuda"


def _claims(out: Path, studies: Sequence[Study]) -> list[Claim]:
    return [
        claim
        for study in studies
        for claim in study.claims(xr.load_dataset(out / "studies" / study.name / "data.nc"))
    ]
