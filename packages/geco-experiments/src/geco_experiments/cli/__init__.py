"""The command line `geco`."""

from geco_experiments.cli.entry_point import COMMANDS, Command, main

__all__ = ["COMMANDS", "Command", "main"]
