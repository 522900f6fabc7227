"""Results: one `run.nc` per run, and many of them as one labelled dataset."""

from geco_experiments.results.combine import AXES, load
from geco_experiments.results.store import FILE, config_of, final, find, open_run, write_dataset

__all__ = ["AXES", "FILE", "config_of", "final", "find", "load", "open_run", "write_dataset"]
