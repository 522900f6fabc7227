"""The command `geco data`: which datasets are on this machine, and how to get them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pooch

from geco_experiments import registry
from geco_experiments.cli.output import say, tell
from geco_experiments.datasets import locate, needs
from geco_experiments.datasets.fetch import fetch
from geco_experiments.datasets.home import ENVIRONMENT, DataHome
from geco_experiments.runtime.errors import MissingDataError

__all__ = ["data_main"]


def data_main(argv: Sequence[str]) -> int:
    """The command `geco data`."""
    known = registry.names("datasets")
    parser = argparse.ArgumentParser(prog="geco data", description="Image datasets.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="what is on this machine, what each dataset needs")
    get = commands.add_parser("fetch", help="download a dataset, checksums compared")
    check.add_argument("name", nargs="?", choices=known, help="only this dataset")
    get.add_argument("name", choices=known, help="the dataset")
    for sub in (check, get):
        sub.add_argument("--data-home", type=Path, help=f"data folder (default: {ENVIRONMENT})")
    options = parser.parse_args(argv)
    home = DataHome.resolve(options.data_home)
    if options.command == "fetch":
        pooch.get_logger().setLevel("WARNING")  # this command says the same in its own words
        if options.name == "digits":
            say("digits is part of scikit-learn: nothing to fetch")
        for path in fetch(options.name, home, progress=True, say=say):
            tell(str(path))
        return 0
    names = known if options.name is None else (options.name,)
    tell(home.searched)
    missing = [name for name in names if not _check(name, home)]
    return 2 if options.name in missing else 0


def _check(name: str, home: DataHome) -> bool:
    try:
        found = locate(name, home)
    except MissingDataError:
        where = f"missing; needs {needs(name)}"
        if name != "celeba":
            where += f"; get it with `geco data fetch {name}`"
        tell(f"{name:14s} {where}")
        return False
    where = f"found in {found[0].parent}" if found else "ready"
    tell(f"{name:14s} {where}")
    return True
