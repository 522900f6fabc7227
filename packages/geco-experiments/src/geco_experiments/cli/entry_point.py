"""The command `geco`: one place where every subcommand is registered and every error is told.

Nothing heavy is imported before a subcommand is known: help and version come at once.
"""

import difflib
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from geco_experiments import __version__
from geco_experiments.cli.output import close_quietly, say, tell
from geco_experiments.runtime.errors import GecoError, is_out_of_memory

__all__ = ["COMMANDS", "Command", "main"]

BROKEN_PIPE = 141  # 128 + SIGPIPE, as the shell reports it for other programs


class Command(NamedTuple):
    """A subcommand: one line of help, and the function `(argv) -> exit code` that does it.

    The function is named as `module:name` and imported only when it is called.
    """

    help: str
    target: str


COMMANDS = {
    "run": Command("train one model", "geco_experiments.cli.commands:run_main"),
    "sweep": Command("train many models", "geco_experiments.cli.commands:sweep_main"),
    "curve": Command(
        "train a model for several tolerances, and a page of it",
        "geco_experiments.cli.curve:curve_main",
    ),
    "show": Command("list finished runs", "geco_experiments.cli.commands:show_main"),
    "data": Command("check or fetch datasets", "geco_experiments.cli.data:data_main"),
    "reproduce": Command("make every figure and table", "geco_experiments.cli.reproduce:main"),
    "report": Command("write the page of a folder", "geco_experiments.cli.report:report_main"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `geco COMMAND ...`.

    Returns:
        0 if all went well; 2 for what the user can put right (bad options, missing data, a
        folder that cannot be used), told in one message; 1 if some runs of many failed, or for a
        fault of the program; 130 if interrupted; 141 if nobody reads the output any longer.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except GecoError as error:
        say(str(error))
        return 2
    except BrokenPipeError:
        close_quietly()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from the last checkpoint")
        return 130
    except Exception as error:
        if os.environ.get("GECO_TRACEBACK"):
            raise
        say(_fault(error))
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        say(_usage())
        return 2
    if arguments[0] in ("-h", "--help", "help"):
        tell(_usage())
        return 0
    if arguments[0] == "--version":
        tell(f"geco {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        say(f"geco has no command {name!r}: {hint}")
        return 2
    module, _, function = COMMANDS[name].target.partition(":")
    code: int = getattr(importlib.import_module(module), function)(rest)
    return code


def _fault(error: Exception) -> str:
    """One sentence on an error that no code foresaw, with its whole story in a file."""
    if is_out_of_memory(error):
        return "the memory is not enough: choose a smaller model, batch or dataset"
    reason = str(error).partition("\n")[0][:300]
    text = f"{type(error).__name__}: {reason}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="geco-fault-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return f"{text} (a fault of this program; GECO_TRACEBACK=1 shows where)"
    return f"{text} (a fault of this program, please report it; where it was: {Path(file.name)})"


def _usage() -> str:
    lines = [f"  {name:10s} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: geco COMMAND ...", "", *lines, "", "geco COMMAND --help says more."])
