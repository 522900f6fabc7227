"""What the commands share: options from dataclasses, a configuration file, progress."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from geco_experiments.cli.output import say
from geco_experiments.config import RunConfig
from geco_experiments.runtime.atomic import reading
from geco_experiments.runtime.errors import RunError
from geco_experiments.runtime.progress import LineMeter, Meter, NoMeter, TqdmMeter

__all__ = ["meter", "parse", "read_config"]

T = TypeVar("T")


def parse(command: type[T], argv: Sequence[str], name: str) -> T:
    """The options of a command that has a run's configuration among its fields.

    Raises:
        RunError: for a value that is refused, in one sentence.
        SystemExit: for help, and for options that do not exist.
    """
    default: Any = None
    path = _config_file(argv)
    if path is not None:
        loaded = {"config": read_config(path)}
        required = {
            item.name: ()
            for item in dataclasses.fields(command)  # type: ignore[arg-type]
            if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        }
        default = command(**{**required, **loaded})
        if required:
            default = None if not _given(argv, required) else default
    try:
        if default is None and path is not None:
            raise RunError(f"{name} needs {', '.join(f'--{word}' for word in required)}")
        parsed: T = tyro.cli(command, args=list(argv), prog=name, default=default)
    except (TypeError, ValueError, OverflowError) as error:
        raise RunError(str(error)) from error
    return parsed


def read_config(path: Path) -> RunConfig:
    """A run's configuration from a JSON file, such as the `config.json` of a run.

    Raises:
        RunError: if the file cannot be read or is no configuration.
    """
    with reading(path):
        content = path.read_bytes()
    try:
        return RunConfig.from_json(content.decode("utf-8"))
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is no configuration of a run: {error}") from error


def meter(quiet: bool) -> Meter:
    """How progress is shown: a bar on a terminal, whole lines in files and pipes."""
    if quiet:
        return NoMeter()
    return TqdmMeter() if sys.stderr.isatty() else LineMeter(say)


def _config_file(argv: Sequence[str]) -> Path | None:
    for index, word in enumerate(argv):
        if word == "--config" and index + 1 < len(argv):
            return Path(argv[index + 1])
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
    return None


def _given(argv: Sequence[str], names: dict[str, Any]) -> bool:
    return all(any(word.split("=")[0] == f"--{name}" for word in argv) for name in names)
