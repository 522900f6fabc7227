"""Results: one `run.nc` per run, and many of them as one labelled dataset."""

from geco_experiments.results.combine import AXES, load
from geco_experiments.results.store import (
    FILE,
    config_of,
    final,
    finals,
    find,
    open_run,
    per_tolerance,
    write_dataset,
)
from geco_experiments.results.trade_off import curve

__all__ = [
    "AXES",
    "FILE",
    "config_of",
    "curve",
    "final",
    "finals",
    "find",
    "load",
    "open_run",
    "per_tolerance",
    "write_dataset",
]
