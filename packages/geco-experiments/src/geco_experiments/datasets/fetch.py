"""Downloads: one checked file at a time, whole or not at all."""

from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from geco_experiments.datasets.home import DataHome
from geco_experiments.datasets.named import needs, spec_of
from geco_experiments.datasets.sources import Source
from geco_experiments.runtime.atomic import writing
from geco_experiments.runtime.errors import DataError, MissingDataError

__all__ = ["fetch"]


def fetch(
    name: str, home: DataHome, *, progress: bool = False, say: Callable[[str], None] | None = None
) -> list[Path]:
    """Download what a dataset needs into the data folder.

    Files that are there with the right sha256 are left alone; a download is checked before it
    takes its name.

    Args:
        name: The dataset.
        home: Its `download_folder` is written to.
        progress: Whether to draw a bar for each file.
        say: Told one line for each file.

    Returns:
        The files.

    Raises:
        DataError: if the dataset cannot be downloaded, the network is out of reach, or a file is
            not the expected one.
        RunError: if the folder cannot be written to.
    """
    try:
        spec = spec_of(name)
    except ValueError as error:
        raise DataError(str(error)) from error
    if not spec.downloads:
        try:
            spec.locate(home)
        except MissingDataError as error:
            raise DataError(
                f"{name} cannot be downloaded automatically: it needs {needs(name)}"
            ) from error
    return [_fetch(source, home.download_folder, progress, say) for source in spec.downloads]


def _fetch(
    source: Source, folder: Path, progress: bool, say: Callable[[str], None] | None
) -> Path:
    path = folder / source.path
    if path.is_file():
        if pooch.file_hash(str(path)) == source.sha256:
            if say:
                say(f"{path} is there")
            return path
        raise DataError(f"{path} is there but not the expected file: move it away and fetch again")
    with writing("the download", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in source.urls:
        if say:
            say(f"fetching {url}")
        try:
            pooch.retrieve(
                url,
                known_hash=f"sha256:{source.sha256}",
                fname=path.name,
                path=path.parent,
                progressbar=progress,
            )
        # pooch raises ValueError for a wrong checksum
        except (requests.RequestException, ValueError) as error:
            reason = "wrong checksum" if isinstance(error, ValueError) else type(error).__name__
            reasons.append(f"{url}: {reason}")
        except OSError as error:
            with writing("the download", path.parent):
                raise error
        else:
            return path
    raise DataError(
        f"{source.path} could not be fetched ({'; '.join(reasons)}): check the network, or copy "
        f"the file to {path} yourself"
    )
