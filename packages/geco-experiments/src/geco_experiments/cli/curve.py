"""The command `geco curve`: the trade-off between error and KL, on any data, and its page.

With `--kappa LOW..HIGH` it is one run that serves every tolerance; else one run for each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xarray as xr

from geco_experiments.cli.commands import Config, ConfigFile
from geco_experiments.cli.options import meter, parse
from geco_experiments.cli.output import say, tell
from geco_experiments.config import RunConfig
from geco_experiments.datasets import load, require
from geco_experiments.datasets.home import DataHome
from geco_experiments.evaluation.bounds import LARGEST, data_limits, with_limits
from geco_experiments.report import build_report
from geco_experiments.results import config_of, curve, open_run, write_dataset
from geco_experiments.runtime.errors import RunError
from geco_experiments.sweeps import ExecutorName, product, sweep

__all__ = ["curve_main"]

# the tolerances of the paper's Figure 4 [paper]
KAPPAS = (0.06, 0.08, 0.1, 0.125, 0.175)


@dataclass(frozen=True)
class CurveCommand:
    """Train a model for each of several tolerances; a page shows the KL that each one costs."""

    config: Config = field(default_factory=RunConfig)
    config_file: ConfigFile = None
    """A configuration to begin with, such as the config.json of a run; options change it."""
    kappas: tuple[float, ...] = KAPPAS
    """The tolerances, in the units that `--kappa` has; not used if `--kappa` is a range."""
    out: Path = Path("runs")
    """Folder of runs and of the page."""
    executor: ExecutorName = "local"
    """serial: in this process; local: a pool of processes; dask: a Dask cluster."""
    workers: int | None = None
    """Processes of the pool (None: one per core)."""
    data_home: Path | None = None
    """Folder of datasets (None: the environment variable GECO_DATA_HOME)."""
    limits: bool = True
    """Draw what theory says of the same data: the best linear VAE and the least KL."""
    quiet: bool = False
    """No progress and no messages but errors."""


def curve_main(argv: Sequence[str]) -> int:
    """The command `geco curve`: the path of the page on stdout."""
    command = parse(CurveCommand, argv, "geco curve")
    home = DataHome.resolve(command.data_home)
    configs = _configs(command)
    require([command.config.dataset], home)
    try:
        outcome = sweep(
            configs,
            command.out,
            executor=command.executor,
            workers=command.workers,
            data_home=command.data_home,
            progress=meter(command.quiet),
        )
    except ValueError as error:
        raise RunError(str(error)) from error
    if not command.quiet or outcome.failed:
        say(str(outcome))
    if outcome.finished:
        line = curve(outcome.finished)
        limits = _limits(open_run(outcome.finished[0]), home, command) if command.limits else None
        if limits is not None:
            line = with_limits(line, limits)
        path = command.out / f"curve-{line.attrs['dataset']}-{line.attrs['model']}.nc"
        write_dataset(line, path)
        if not command.quiet:
            say(f"the curve as data: {path}")
        tell(str(build_report(command.out).resolve()))
    return 1 if outcome.failed else 0


def _configs(command: CurveCommand) -> list[RunConfig]:
    """One run over a range, or one for each tolerance."""
    if command.config.objective.name != "geco":
        raise RunError(
            f"a curve is one of GECO runs; got the objective {command.config.objective.name}"
        )
    if command.config.objective.kappa_range is not None:
        return [command.config]
    if not command.kappas:
        raise RunError("`--kappas` must name one tolerance at least")
    try:
        return product(command.config, {"objective.kappa": list(command.kappas)})
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error


def _limits(run: xr.Dataset, home: DataHome, command: CurveCommand) -> xr.Dataset | None:
    """What theory says of the data of a run; None where it says nothing, or not in short time."""
    config = config_of(run)
    data = load(config.dataset, home)
    if config.objective.constraint != "re" or not data.is_fixed or data.train.mask is not None:
        return None
    if data.context_shape is not None or math.prod(data.shape) > LARGEST:
        return None
    if not command.quiet:
        say("the best linear VAE and the least KL on the same data (--no-limits leaves them out)")
    return data_limits(config.dataset, home, command.out / "limits")
