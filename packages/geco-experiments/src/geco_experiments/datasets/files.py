"""Readers of the file formats that image datasets come in, plain or compressed."""

import contextlib
import gzip
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geco_experiments.runtime.atomic import write_atomic
from geco_experiments.runtime.errors import DataError

__all__ = [
    "CIFAR_RECORD",
    "COMPRESSIONS",
    "cached",
    "count_idx",
    "read_bytes",
    "read_cifar",
    "read_idx",
    "read_tar_members",
    "variants",
]

Array = NDArray[np.uint8]
COMPRESSIONS = ("", ".gz", ".xz")
CIFAR_RECORD = 1 + 3 * 32 * 32
_DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error, tarfile.TarError)


def variants(name: str, folders: tuple[str, ...]) -> tuple[str, ...]:
    """The names under which a file may be stored: in each folder, plain, .gz or .xz."""
    return tuple(f"{folder}/{name}{end}" for folder in folders for end in COMPRESSIONS)


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise DataError(f"{path} cannot be read ({error}): replace or remove it") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file, uncompressed by its suffix.

    Raises:
        DataError: if the file is truncated, damaged or unreadable.
    """
    with _damage(path):
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        if path.suffix == ".xz":
            with lzma.open(path) as file:
                return file.read()
        return path.read_bytes()


def read_idx(path: Path) -> Array:
    """An array of unsigned bytes in the idx format of MNIST.

    Raises:
        DataError: if the file is damaged or holds something else.
    """
    data = read_bytes(path)
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is no idx file of unsigned bytes: replace or remove it")
    dimensions = data[3]
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise DataError(f"{path} is truncated: replace or remove it")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, 4))
    if len(data) - start != int(np.prod(shape, dtype=np.int64)):
        raise DataError(
            f"{path} holds {len(data) - start} bytes where {shape} are due: replace or remove it"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def count_idx(path: Path) -> int:
    """How many items a file in idx format says it holds, from its first bytes; 0 if it is none."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with contextlib.suppress(*_DAMAGE), opener(path, "rb") as file:
        head = file.read(8)
        return int.from_bytes(head[4:8], "big") if head[:3] == b"\x00\x00\x08" else 0
    return 0


def read_cifar(data: bytes, source: str) -> Array:
    """Records (n, 3073) of one CIFAR-10 file: a label, then 3 x 32 x 32 pixels.

    Raises:
        DataError: if the length is no whole number of records or a label is above 9.
    """
    if not data or len(data) % CIFAR_RECORD:
        raise DataError(
            f"{source} holds {len(data)} bytes, no whole number of records of {CIFAR_RECORD}: "
            "replace or remove it"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, CIFAR_RECORD)
    if records[:, 0].max() > 9:
        raise DataError(f"{source} has labels above 9, so it is not CIFAR-10: replace it")
    return records


def read_tar_members(path: Path, names: tuple[str, ...]) -> list[bytes]:
    """The contents of the named members of a compressed tar file, without unpacking it.

    Raises:
        DataError: if the archive is damaged or lacks a member.
    """
    found: dict[str, bytes] = {}
    with _damage(path), tarfile.open(path, "r|*") as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            file = archive.extractfile(member) if name in names else None
            if file is not None:
                found[name] = file.read()
    lacking = [name for name in names if name not in found]
    if lacking:
        raise DataError(f"{path} lacks {', '.join(lacking)}: replace or remove it")
    return [found[name] for name in names]


def cached(folder: Path, name: str, sources: list[Path], make: Callable[[], Array]) -> Array:
    """An array that is slow to make, kept as `.npy` beside the downloads.

    The copy's name holds the sources' paths, sizes and times, so a changed source is read again.
    A cache folder that cannot be written to costs time, never the result.
    """
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    key = hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    path = folder / "arrays" / f"{name}-{key}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        array: Array = np.load(path, mmap_mode="c", allow_pickle=False)
        return array
    array = make()
    buffer = io.BytesIO()
    np.save(buffer, array)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getbuffer())
    return array
