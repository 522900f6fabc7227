"""The command `geco`: one place where every subcommand is registered."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from geco_experiments import __version__
from geco_experiments.cli.output import say
from geco_experiments.runtime.errors import GecoError

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """A subcommand: one line of help, and the function `(argv) -> exit code` that does it.

    The function is named as `module:name` and imported only when it is called.
    """

    help: str
    target: str


COMMANDS = {
    "run": Command("train one model", "geco_experiments.cli.commands:run_main"),
    "sweep": Command("train many models", "geco_experiments.cli.commands:sweep_main"),
    "show": Command("list finished runs", "geco_experiments.cli.commands:show_main"),
    "data": Command("check or fetch datasets", "geco_experiments.cli.data:data_main"),
    "reproduce": Command("make every figure and table", "geco_experiments.cli.reproduce:main"),
    "report": Command("write the page of a folder", "geco_experiments.cli.reproduce:report_main"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `geco COMMAND ...`.

    Returns:
        0 if all went well; 2 for what the user can put right (bad options, missing data, a
        folder that cannot be used), told in one message; 1 if some runs of many failed; 130 if
        interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        say(f"geco {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        say(f"geco has no command {name!r}: {hint}")
        return 2
    module, _, function = COMMANDS[name].target.partition(":")
    try:
        code: int = getattr(importlib.import_module(module), function)(rest)
    except GecoError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from the last checkpoint")
        return 130
    return code


def _usage() -> str:
    lines = [f"  {name:10s} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: geco COMMAND ...", "", *lines, "", "geco COMMAND --help says more."])
