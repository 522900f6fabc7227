"""Many runs at once: in this process, in a local pool, or on a Dask cluster."""

from geco_experiments.sweeps.runner import (
    ExecutorName,
    SweepOutcome,
    identified,
    product,
    sweep,
    unfinished,
)

__all__ = ["ExecutorName", "SweepOutcome", "identified", "product", "sweep", "unfinished"]
