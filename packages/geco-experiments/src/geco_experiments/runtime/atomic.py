"""Files that are either wholly there or not there at all, whatever happens in between."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from geco_experiments.runtime.errors import RunError

__all__ = [
    "PREFIX",
    "reading",
    "remove_leftovers",
    "write_atomic",
    "write_text_atomic",
    "writing",
]

PREFIX = ".geco-tmp-"


def write_atomic(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write `data` to `path` through a temporary file in the same folder, fsync and rename.

    A reader sees the old content or the new one; a crash, even of the machine, leaves one of the
    two. If anything fails the old file stays and the temporary one is removed.

    Raises:
        OSError: as the operating system gives it (full disk, no permission).
    """
    handle, name = tempfile.mkstemp(prefix=f"{PREFIX}{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; results follow the user's umask like any other file
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """`write_atomic` of text in UTF-8; folders that are missing are made.

    Raises:
        OSError: as the operating system gives it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.encode("utf-8"))


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left; call it under the folder's lock."""
    for path in folder.glob(f"{PREFIX}*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn failures of the file system into one sentence that says what is safe.

    Raises:
        RunError: in place of any OSError, and of the RuntimeError that torch makes of one.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        reason = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file would be larger than this process may write",
            errno.EACCES: "no permission",
            errno.EPERM: "no permission",
            errno.EROFS: "the file system is read-only",
            errno.ENOTDIR: "a part of the path is a file",
            errno.EEXIST: "a file of that name is in the way",
        }.get(number or 0, getattr(error, "strerror", None) or str(error).partition("\n")[0])
        raise RunError(
            f"{what} could not be written to {path}: {reason}; nothing there was changed, "
            "make room or choose another folder (--out), then run the same command again"
        ) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn failures of the file system into one sentence.

    Raises:
        RunError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # makes the rename itself durable; some file systems refuse to open folders
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
