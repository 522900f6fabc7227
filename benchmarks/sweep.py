"""How well a sweep uses two workers: Dask and the local pool against one process.

Six equal runs, one processor thread each. Efficiency is serial time / (workers * parallel time),
from the first run's start to the last run's end as their logs say, so that starting processes and
importing torch is not counted; the whole wall time stands beside it.

    nox -s bench -- sweep [--steps 400] [--workers 2]
"""

import argparse
import tempfile
import time
from datetime import datetime
from pathlib import Path

from geco_experiments import RunConfig
from geco_experiments.config import replace
from geco_experiments.sweeps import product, sweep


def span(folder):
    """Seconds from the first log line to the last one of all runs."""
    stamps = [
        datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")
        for log in folder.glob("logs/*.log")
        for line in log.read_text().splitlines()
    ]
    return (max(stamps) - min(stamps)).total_seconds()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    base = replace(
        RunConfig(),
        {
            "training.steps": options.steps,
            "training.marginal_samples": 0,
            "execution.threads": 1,
            "execution.device": "cpu",
        },
    )
    configs = product(base, {"seed": list(range(options.runs))})
    serial = None
    for executor in ("serial", "local", "dask"):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            outcome = sweep(configs, folder, executor=executor, workers=options.workers)
            wall = time.perf_counter() - start
            if outcome.failed:
                raise SystemExit(str(outcome))
            seconds = span(Path(folder))
        serial = serial or seconds
        line = f"{executor:7s} {seconds:7.1f} s of runs, {wall:7.1f} s in all"
        if executor != "serial":
            line += f", efficiency {serial / (options.workers * seconds):.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
