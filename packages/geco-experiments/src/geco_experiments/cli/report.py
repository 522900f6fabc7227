"""The command `geco report`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from geco_experiments.cli.output import tell
from geco_experiments.report import build_report, read_studies
from geco_experiments.report.markdown import markdown
from geco_experiments.runtime.atomic import write_text_atomic, writing

__all__ = ["report_main"]


def report_main(argv: Sequence[str]) -> int:
    """The command `geco report DIR`: the path of the page on stdout."""
    parser = argparse.ArgumentParser(
        prog="geco report", description="Write index.html from the studies and runs of a folder."
    )
    parser.add_argument("folder", type=Path, help="what reproduce, run or sweep wrote to")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="also write the claims and tables there"
    )
    options = parser.parse_args(argv)
    page = build_report(options.folder)
    if options.markdown is not None:
        with writing("the summary", options.markdown):
            write_text_atomic(options.markdown, markdown(read_studies(options.folder)))
    tell(str(page.resolve()))
    return 0
