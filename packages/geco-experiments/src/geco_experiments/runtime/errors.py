"""What can go wrong with a run, in words for the person at the terminal.

Every error here ends a command with exit code 2 and its one message, never a traceback.
"""

import contextlib
from collections.abc import Iterator

__all__ = [
    "DataError",
    "GecoError",
    "MissingDataError",
    "RunError",
    "SchemaError",
    "explained",
    "is_out_of_memory",
]


class GecoError(Exception):
    """Anything that the user can put right; the command line prints it and exits with 2."""


class DataError(GecoError):
    """A dataset is missing, damaged or not what its name promises."""


class MissingDataError(DataError):
    """A dataset's files are not on this machine."""


class RunError(GecoError):
    """A run's folder cannot be used, written to, or trusted."""


class SchemaError(GecoError):
    """A result file follows another schema than this version of the package reads."""


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what a library raises for values that it refuses into an error of the run.

    Args:
        what: What is being made, for the message.

    Raises:
        RunError: in place of ValueError, TypeError, OverflowError, and of running out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"{what} does not fit into memory: choose a smaller model, batch or image"
        ) from error
    except (ValueError, TypeError, OverflowError) as error:
        raise RunError(f"{what} cannot be made: {str(error).partition(chr(10))[0]}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on a processor or an accelerator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        part in words
        for part in ("allocate memory", "out of memory", "storage size calculation overflowed",
                     "invalid shape dimension", "not enough memory")
    )  # fmt: skip
