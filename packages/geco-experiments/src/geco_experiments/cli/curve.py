"""The command `geco curve`: the trade-off between error and KL, on any data, and its page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geco_experiments.cli.commands import Config, ConfigFile
from geco_experiments.cli.options import meter, parse
from geco_experiments.cli.output import say, tell
from geco_experiments.config import RunConfig
from geco_experiments.datasets import require
from geco_experiments.datasets.home import DataHome
from geco_experiments.report import build_report
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
    """The tolerances, in the units that `--kappa` has."""
    out: Path = Path("runs")
    """Folder of runs and of the page."""
    executor: ExecutorName = "local"
    """serial: in this process; local: a pool of processes; dask: a Dask cluster."""
    workers: int | None = None
    """Processes of the pool (None: one per core)."""
    data_home: Path | None = None
    """Folder of datasets (None: the environment variable GECO_DATA_HOME)."""
    quiet: bool = False
    """No progress and no messages but errors."""


def curve_main(argv: Sequence[str]) -> int:
    """The command `geco curve`: the path of the page on stdout."""
    command = parse(CurveCommand, argv, "geco curve")
    if not command.kappas:
        raise RunError("`--kappas` must name one tolerance at least")
    try:
        configs = product(command.config, {"objective.kappa": list(command.kappas)})
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error
    require([command.config.dataset], DataHome.resolve(command.data_home))
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
        tell(str(build_report(command.out).resolve()))
    return 1 if outcome.failed else 0
