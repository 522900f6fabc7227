"""Where the command line's words go: results to stdout, messages and progress to stderr."""

import contextlib
import json
import os
import sys
from typing import Any

__all__ = ["close_quietly", "say", "tell", "tell_json"]


def say(text: str) -> None:
    """A message for people, on stderr; it is lost, and no more, if nobody listens any longer."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def tell(text: str) -> None:
    """A line of the result, on stdout.

    Raises:
        BrokenPipeError: if nobody reads it any longer, as in `geco show runs | head`.
    """
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell_json(value: Any) -> None:
    """The result as one line of JSON, on stdout; numbers that are none become null."""
    tell(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False))


def close_quietly() -> None:
    """After a broken pipe: Python must not complain about it once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, int | str | bool | None) else str(value)
