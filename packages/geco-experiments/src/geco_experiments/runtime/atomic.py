"""Files that are either wholly there or not there at all, whatever happens in between.

A new file is made in a temporary folder beside its place and moved there when it is complete. The
folder is locked by the process that writes, so that what a killed process left can be told from
what another one is writing at this moment, and is removed by the next that looks.
"""

import contextlib
import errno
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geco_experiments.runtime.errors import RunError

fcntl: Any = None
with contextlib.suppress(ImportError):  # no such locks on this system
    fcntl = importlib.import_module("fcntl")

__all__ = [
    "PREFIX",
    "lock_file",
    "reading",
    "remove_leftovers",
    "replacing",
    "write_atomic",
    "write_text_atomic",
    "writing",
]

PREFIX = ".geco-tmp-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in the block; the file there then takes the place of `path`.

    It is moved after an fsync. A reader sees the old content or the new one; a crash, even of the
    machine, leaves one of the two. If anything fails the old file stays and nothing is left.

    Raises:
        OSError: as the operating system gives it (full disk, no permission).
    """
    folder, lock = _temporary_folder(path.parent)
    try:
        part = folder / path.name
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        # some writers make their files private; results follow the user's umask like any other
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
    _sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write `data` to `path`, whole or not at all, as `replacing` does.

    Raises:
        OSError: as the operating system gives it (full disk, no permission).
    """
    with replacing(path) as part:
        part.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """`write_atomic` of text in UTF-8; folders that are missing are made.

    Raises:
        OSError: as the operating system gives it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.encode("utf-8"))


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder, and nothing that is being written."""
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                if lock_file(handle):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(handle)


def lock_file(handle: int) -> bool | None:
    """Lock an open file or folder for this process, without waiting.

    The lock belongs to the open file, so that a killed process leaves none behind.

    Returns:
        Whether it is locked now; None where the system or the file system has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # such as ENOLCK and ENOTSUP of network file systems
        return None
    return True


def _temporary_folder(parent: Path) -> tuple[Path, int]:
    for _ in range(100):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        # False: who cleans up came in between making and locking, and removes it
        if lock_file(lock) is not False and folder.exists():
            return folder, lock
        os.close(lock)
    raise OSError(errno.EBUSY, "somebody removes new files at once", str(parent))


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
