"""The command `geco-theory analyse FILE [--out DIR]`."""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from geco_theory import __version__
from geco_theory.phase_transitions import PhaseTransitions
from geco_theory.plots.style import figure
from geco_theory.report.collecting import collect
from geco_theory.report.page import render_report
from geco_theory.report.preparing import prepare
from geco_theory.report.reading import Table, read_table
from geco_theory.report.writing import write_atomically, write_dataset, write_tables

__all__ = ["main"]

BAD_INPUT = 2
INTERRUPTED = 130  # as a shell reports SIGINT
LINE_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: words of the command line; by default those of the process.

    Returns:
        The exit code: 0, 2 for bad input, 130 if interrupted (what was done is kept).
    """
    options = _parser().parse_args(arguments)
    try:
        return _analyse(options)
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())
        sys.stderr.write(f"geco-theory: {message}\n")
        return BAD_INPUT
    except MemoryError:
        sys.stderr.write("geco-theory: not enough memory for these data; pass fewer samples.\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        sys.stderr.write("geco-theory: interrupted before any temperature was solved.\n")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="geco-theory", description="The phase diagram of a dataset."
    )
    parser.add_argument("--version", action="version", version=f"geco-theory {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    analyse = commands.add_parser(
        "analyse",
        help="solve a dataset over temperature and write a report",
        description="Solve the fixed points of a dataset over temperature: critical "
        "temperatures, rate and distortion, advice on kappa. Writes analysis.nc, tables as csv "
        "and one HTML page.",
    )
    analyse.add_argument(
        "file",
        metavar="FILE",
        help="samples in rows: npy, npz, csv, netCDF, also with .gz; - for standard input; images "
        "are flattened",
    )
    analyse.add_argument(
        "--out", metavar="DIR", help="where to write; by default FILE's name with -analysis"
    )
    analyse.add_argument(
        "--array",
        metavar="NAME",
        help="which array of an npz or netCDF file; GROUP/NAME in a group",
    )
    analyse.add_argument(
        "--columns", metavar="LIST",
        help="which columns are features: names, or numbers from 1 on (1,3-5), commas between",
    )  # fmt: skip
    analyse.add_argument(
        "--standardise", action="store_true",
        help="bring every column to mean 0 and variance 1; kappa is then in those units",
    )  # fmt: skip
    analyse.add_argument(
        "--masses", choices=["free", "equal"], default="free",
        help="free: the global optimum (default); equal: one tile per sample",
    )  # fmt: skip
    analyse.add_argument(
        "--temperatures", metavar="N|LIST", type=_temperatures, default=None,
        help="how many temperatures to solve, evenly spaced in their logarithm, or which",
    )  # fmt: skip
    analyse.add_argument(
        "--kappa", metavar="LIST", type=_positives, default=None,
        help="tolerances to advise on: RMS errors per element, commas between",
    )  # fmt: skip
    analyse.add_argument(
        "--direction", choices=["auto", "heating", "cooling", "both"], default="auto",
        help="order of the temperatures; both: equal masses only",
    )  # fmt: skip
    analyse.add_argument(
        "--max-values", metavar="N", type=_count, default=None,
        help="free masses: end the path where there are more decoder values",
    )  # fmt: skip
    analyse.add_argument(
        "--tolerance", metavar="EPS", type=_positive, default=1e-9,
        help="free masses: the certificate ln S to reach (default 1e-9)",
    )  # fmt: skip
    analyse.add_argument(
        "--n-jobs", metavar="N", type=int, default=None,
        help="temperatures solved at the same time; -1: as many as there are cores",
    )  # fmt: skip
    analyse.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _count(word: str) -> int:
    """A whole number of at least 2."""
    try:
        number = int(word)
    except ValueError:
        number = 0
    if number < 2:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of at least 2")
    return number


def _positive(word: str) -> float:
    """A positive finite number."""
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if not (math.isfinite(number) and number > 0.0):
        raise argparse.ArgumentTypeError(f"{word!r} is not a positive number")
    return number


def _positives(word: str) -> list[float]:
    """Positive numbers with commas between."""
    return [_positive(part) for part in word.split(",")]


def _temperatures(word: str) -> int | list[float]:
    """How many temperatures, or a list of them (one followed by a comma is a list too)."""
    if "," not in word and "." not in word and "e" not in word.lower():
        return _count(word)
    return sorted(set(_positives(word.rstrip(","))))


def _analyse(options: argparse.Namespace) -> int:
    """Read, solve, write."""
    stem = "stdin" if options.file == "-" else Path(options.file.removesuffix(".gz")).stem
    out = Path(options.out or f"{stem}-analysis")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {str(out)!r} is a file; pass a folder, or a name that is free.")
    table = prepare(
        read_table(options.file, options.array), options.columns, standardise=options.standardise
    )
    for note in table.notes:
        sys.stderr.write(f"{note}\n")
    analysis = PhaseTransitions(
        options.masses,
        temperatures=options.temperatures,
        direction=options.direction,
        tolerance=options.tolerance,
        max_clusters=options.max_values,
        n_jobs=options.n_jobs,
    )
    complete = True
    with _Progress(quiet=options.quiet) as progress:
        analysis.set_params(progress=progress)
        try:
            analysis.fit(table.X)
        except KeyboardInterrupt:
            if not hasattr(analysis, "path_"):
                raise
            complete = False
    _write(out, table, analysis, options.kappa, complete=complete)
    if not complete:
        solved = analysis.path_.sizes["temperature"]
        sys.stderr.write(f"geco-theory: interrupted; {solved} solved temperatures are kept.\n")
        return INTERRUPTED
    return 0


def _write(
    out: Path,
    table: Table,
    analysis: PhaseTransitions,
    kappa: list[float] | None,
    *,
    complete: bool,
) -> None:
    """Everything that was found, each file whole; then say where it is."""
    results = collect(table, analysis, __version__, complete=complete, kappa=kappa)
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "analysis.nc"]
    write_dataset(written[0], results)
    written += write_tables(out, results)
    try:
        figure(1.0, 1.0)
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"geco-theory: no HTML page, because {missing}\n")
    else:
        written.append(out / "report.html")
        write_atomically(written[-1], render_report(results).encode("utf-8"))
    for path in written:
        sys.stdout.write(f"{path}\n")


class _Progress:
    """A bar by tqdm where it is installed, lines otherwise, on stderr.

    Without the time left: temperatures cost very different times, the most where values are half
    as many as samples, so what the first ones took says nothing of the rest.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None
        self.stage = ""
        self.start = time.monotonic()
        self.last = -float("inf")
        self._show: Callable[[dict[str, Any]], None] = self._line
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            return
        self._tqdm = tqdm
        self._show = self._advance

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, state: dict[str, Any]) -> None:
        """Show that one more temperature is done."""
        if not self.quiet:
            self._show(state)

    def _advance(self, state: dict[str, Any]) -> None:
        """One step of the bar; a new stage begins a new bar."""
        if self.bar is None or state["stage"] != self.stage:
            if self.bar is not None:
                self.bar.close()
            self.stage = str(state["stage"])
            self.bar = self._tqdm(
                total=state["total"],
                desc=self.stage,
                unit="T",
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
            )
        self.bar.total = state["total"]
        self.bar.set_postfix_str(_words(state), refresh=False)
        self.bar.update(state["done"] - self.bar.n)

    def _line(self, state: dict[str, Any]) -> None:
        """A line now and then."""
        now = time.monotonic()
        if state["stage"] != self.stage:
            self.stage, self.start, self.last = str(state["stage"]), now, -float("inf")
        done, total = state["done"], state["total"]
        if now - self.last < LINE_SECONDS and done < total:
            return
        self.last = now
        sys.stderr.write(
            f"{self.stage}: {done} of {total} temperatures, {_words(state)}, "
            f"{now - self.start:.0f} s\n"
        )
        sys.stderr.flush()


def _words(state: dict[str, Any]) -> str:
    """Where the solver is."""
    words = [f"T={state['temperature']:.4g}"] if "temperature" in state else []
    if "n_clusters" in state:
        words.append(f"K={state['n_clusters']}")
    return ", ".join(words)


if __name__ == "__main__":
    raise SystemExit(main())
