"""Where the command line's words go: results to stdout, messages to stderr."""

import sys
from typing import Any

__all__ = ["say"]


def say(text: str, stream: Any = None) -> None:
    """Print a line: for people on stderr, for pipes on stdout."""
    print(text, file=stream or sys.stderr, flush=True)
