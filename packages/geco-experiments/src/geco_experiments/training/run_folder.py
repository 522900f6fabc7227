"""A run's folder: who may work in it, and whether what lies there belongs to the run."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from geco_experiments.config import RunConfig
from geco_experiments.runtime.atomic import lock_file, remove_leftovers, write_atomic, writing
from geco_experiments.runtime.errors import GecoError, RunError

__all__ = ["CONFIG_FILE", "claim"]

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"


@contextlib.contextmanager
def claim(folder: Path, config: RunConfig) -> Iterator[None]:
    """Hold a run's folder: make it, lock it, and check or write its `config.json`.

    The lock belongs to the open file, so that a killed process leaves none behind.

    Raises:
        RunError: if the folder cannot be made or written to, another process works in it, or it
            holds another run or files of something else. Nothing in it is changed then.
    """
    new = [place for place in (folder, folder.parent) if not place.exists()]
    with writing("the run", folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("a")
    with lock:
        # None: no locks here; runs must not share a folder then
        if lock_file(lock.fileno()) is False:
            raise RunError(f"another process is working on {folder}: wait for it, or end it first")
        remove_leftovers(folder)
        _check_config(folder, config)
        try:
            yield
        except GecoError:
            _abandon(folder, new)
            raise


def _abandon(folder: Path, new: list[Path]) -> None:
    """Remove what a refused run would leave: a folder without a single step in it."""
    if folder in new and {path.name for path in folder.iterdir()} <= {LOCK_FILE, CONFIG_FILE}:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: other runs lie there
            for place in new[1:]:
                place.rmdir()


def _check_config(folder: Path, config: RunConfig) -> None:
    path = folder / CONFIG_FILE
    if path.exists():
        try:
            found = RunConfig.from_json(path.read_text("utf-8"))
        except (OSError, TypeError, ValueError) as error:
            raise RunError(
                f"{path} is damaged or no configuration ({error}): move {folder} away"
            ) from error
        if found.identity != config.identity:
            raise RunError(
                f"{folder} holds a run with another configuration: choose another folder (--out)"
            )
        return
    foreign = sorted(p.name for p in folder.iterdir() if p.name != LOCK_FILE)
    if foreign:
        raise RunError(
            f"{folder} holds {foreign[0]} but no {CONFIG_FILE}, so it was not made by a run: "
            "move it away or choose another folder (--out)"
        )
    text = json.dumps(config.to_dict(), indent=1, sort_keys=True)
    with writing("the configuration", path):
        write_atomic(path, text.encode())
