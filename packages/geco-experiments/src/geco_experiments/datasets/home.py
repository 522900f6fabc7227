"""Where image files are looked for: the user's data folder, then the download cache.

The data folder is `--data-home`, else the environment variable `GECO_DATA_HOME`. Downloads of
`geco data fetch` go to the data folder when one is named, else to the cache folder of this user.
Nothing is ever written into a data folder by reading from it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from geco_experiments.runtime.errors import DataError, MissingDataError

__all__ = ["ENVIRONMENT", "DataHome", "MissingDataError", "find_data_home"]

ENVIRONMENT = "GECO_DATA_HOME"


@dataclass(frozen=True)
class DataHome:
    """The folders that are searched for image files, in order.

    Args:
        named: The folder named by the user, or None.
        cache: The folder of downloads and of unpacked copies.
    """

    named: Path | None
    cache: Path

    @classmethod
    def resolve(cls, path: str | os.PathLike[str] | None = None) -> "DataHome":
        """The folders of this user: `path`, else the environment, then the cache."""
        text = os.fspath(path) if path is not None else os.environ.get(ENVIRONMENT, "")
        try:
            named = Path(text).expanduser().absolute() if text else None
        except RuntimeError as error:
            raise DataError(f"the data folder {text!r} names a user who does not exist") from error
        return cls(named, Path(pooch.os_cache("geco")))

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders to search, in order."""
        return (self.named, self.cache) if self.named is not None else (self.cache,)

    @property
    def download_folder(self) -> Path:
        """Where `geco data fetch` puts files."""
        return self.named if self.named is not None else self.cache

    def find(self, candidates: Sequence[str]) -> Path | None:
        """The first existing file or folder among `candidates`, relative to each folder."""
        for folder in self.folders:
            for candidate in candidates:
                path = folder / candidate
                if path.exists():
                    return path
        return None

    def require(self, dataset: str, wanted: Sequence[Sequence[str]], remedy: str) -> list[Path]:
        """One path for each group of alternative names in `wanted`.

        Raises:
            MissingDataError: names the files that are missing, the folders, and what to do.
        """
        found = [self.find(candidates) for candidates in wanted]
        missing = [group[0] for group, path in zip(wanted, found, strict=True) if path is None]
        if missing:
            raise MissingDataError(self.missing(dataset, missing, remedy))
        return [path for path in found if path is not None]

    def missing(self, dataset: str, files: Sequence[str], remedy: str) -> str:
        """The one message for files that are not there."""
        return f"{dataset}: no {', '.join(files)} (plain or compressed) in {self._where}; {remedy}"

    @property
    def searched(self) -> str:
        """The folders that are searched, in words."""
        return f"looking in {self._where}"

    @property
    def _where(self) -> str:
        if self.named is None:
            return f"{self.cache} (no data folder: set {ENVIRONMENT} or give --data-home)"
        where = " or ".join(str(folder) for folder in self.folders)
        return where if self.named.is_dir() else f"{where} ({self.named} is no folder)"


def find_data_home(path: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder named by `path` or by the environment, or None; it need not exist."""
    return DataHome.resolve(path).named
