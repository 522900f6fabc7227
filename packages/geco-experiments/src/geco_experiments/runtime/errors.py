"""What can go wrong with a run, in words for the person at the terminal.

Every error here ends a command with exit code 2 and its one message, never a traceback.
"""

__all__ = ["DataError", "GecoError", "MissingDataError", "RunError", "SchemaError"]


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
