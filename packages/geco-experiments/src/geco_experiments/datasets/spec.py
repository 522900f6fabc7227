"""What stands behind a dataset's name: how it is found, read, and where its files come from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geco_experiments.config import DatasetConfig
from geco_experiments.datasets.base import Dataset
from geco_experiments.datasets.home import DataHome
from geco_experiments.datasets.sources import Source

__all__ = ["DatasetSpec"]


def _nothing(home: DataHome) -> list[Path]:
    """No files: the dataset comes with the package."""
    return []


def _never(config: DatasetConfig) -> bool:
    """No context, whatever the configuration."""
    return False


def _always(home: DataHome) -> bool:
    """What is found is what the name promises."""
    return True


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset that has a name; other packages register theirs (`geco_experiments.registry`).

    Attributes:
        load: Reads the whole dataset into memory.
        locate: Its files, without reading them; raises `MissingDataError` if some are missing.
        needs: What it needs, in one line for `geco data check`; empty: the files to download.
        downloads: Files that `geco data fetch` gets, with their checksums.
        has_context: Whether models are given a context beside the data.
        is_original: Whether the files found are those that the name promises; if not, runs on
            them are named after their content too.
    """

    load: Callable[[DatasetConfig, DataHome], Dataset]
    locate: Callable[[DataHome], list[Path]] = _nothing
    needs: str = ""
    downloads: tuple[Source, ...] = ()
    has_context: Callable[[DatasetConfig], bool] = _never
    is_original: Callable[[DataHome], bool] = _always
