"""What every study is: the runs it needs, what it measures in them, how that is drawn.

A study reads finished runs; it never trains. The order of work is

    configs(profile) -> (the sweep makes the runs) -> measure(runs, profile) -> an xarray.Dataset
    -> draw, tables, claims, notes of that dataset alone

so that figures can be redrawn from `data.nc` without a single run at hand.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import xarray as xr
from matplotlib.figure import Figure as Canvas

from geco_experiments.config import RunConfig
from geco_experiments.results import schema
from geco_experiments.results.findings import Claim, Figure, Findings, Table
from geco_experiments.results.store import open_run
from geco_experiments.runtime.atomic import remove_leftovers, writing
from geco_experiments.studies.common.profiles import Profile
from geco_experiments.studies.common.style import save_figure, styled

__all__ = ["Drawing", "Runs", "Study", "finish_study", "legible", "put_off"]


class Runs(Mapping[RunConfig, xr.Dataset]):
    """The finished runs of one study, by configuration; each is opened when it is asked for.

    Args:
        folder: the folder of runs.
        configs: which of them.
        opened: the runs opened so far, by path; given to several studies, each file is read once.
    """

    def __init__(
        self,
        folder: Path,
        configs: Iterable[RunConfig],
        opened: dict[Path, xr.Dataset] | None = None,
    ) -> None:
        self.folder = folder
        self._configs = tuple(configs)
        self._opened = {} if opened is None else opened

    def __getitem__(self, config: RunConfig) -> xr.Dataset:
        path = self.path(config)
        if path not in self._opened:
            self._opened[path] = open_run(path)
        # studies give runs labels of their own; the tolerances of a range stay
        run = self._opened[path]
        return run.drop_vars(
            [name for name in schema.LABELS if name in run and not run[name].ndim]
        )

    def __iter__(self) -> Iterator[RunConfig]:
        return iter(self._configs)

    def __len__(self) -> int:
        return len(self._configs)

    def path(self, config: RunConfig) -> Path:
        """Where a run's results lie."""
        return self.folder / config.name / "run.nc"


@dataclass(frozen=True)
class Drawing:
    """One figure as drawn, before it is saved."""

    name: str
    canvas: Canvas
    caption: str
    alt: str


class Study(ABC):
    """One figure, table or claim of the paper, or one of this project's own.

    Attributes:
        name: the folder's and command line's name, such as `figure-4`.
        title: the heading on the page.
        source: where it comes from, with its mark ([paper], [second-hand], [derived], [ours]).
        look_for: one sentence that tells a reader what to look for.
        order: place on the page.
        growth: about how many runs it makes in all for each one that `configs` lists.
        bounded: whether it draws the limits of its datasets (`plane`).
        reads_all: whether it reads the runs of all other studies too.
        in_smoke: whether the smoke profile can decide it; if not, that profile names the command.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    look_for: ClassVar[str]
    order: ClassVar[int]
    growth: ClassVar[float] = 1.0
    bounded: ClassVar[bool] = False
    reads_all: ClassVar[bool] = False
    in_smoke: ClassVar[bool] = True

    def configs(self, profile: Profile) -> list[RunConfig]:
        """The runs that the study reads; none for a study of theory alone."""
        return []

    def follow_up(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> list[RunConfig]:
        """Runs whose configuration depends on finished ones, such as GECO at an ELBO's error.

        Asked again after each stage, with all finished runs, until it adds nothing new.
        """
        return []

    @abstractmethod
    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """The numbers behind the study's figures and tables, with units."""

    @abstractmethod
    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """The figures, from the measured numbers alone."""

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Small tables for the page."""
        return []

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """The claims that this study decides, with their rules."""
        return []

    def notes(self, data: xr.Dataset) -> list[str]:
        """What a reader must know to read the figures rightly."""
        return []


def legible(table: Table) -> Table:
    """A number that is none has a word of its own."""
    rows = tuple(
        tuple(re.sub(r"[+-]?\bnan\b%?", "not measured", cell) for cell in row)
        for row in table.rows
    )
    return replace(table, rows=rows)


def put_off(study: Study, folder: Path) -> None:
    """Leave a note on a study that a profile cannot decide, for the page to list.

    Raises:
        RunError: if it cannot be written.
    """
    findings = Findings(
        name=study.name,
        title=study.title,
        source=study.source,
        look_for=study.look_for,
        order=study.order,
        command=f"geco reproduce --profile laptop --study {study.name}",
    )
    with writing("the note", folder):
        folder.mkdir(parents=True, exist_ok=True)
        findings.write(folder)


def finish_study(
    study: Study,
    runs: Runs,
    profile: Profile,
    folder: Path,
    *,
    data_home: Path | None = None,
    save: Callable[[xr.Dataset, Path], None],
) -> Findings:
    """Measure, save, draw and describe one study in its folder.

    Args:
        study: the study.
        runs: its finished runs.
        profile: the profile that they were made with.
        folder: the study's folder; made if needed.
        data_home: where the datasets lie.
        save: writes a dataset to a path atomically.
    """
    with writing("the study", folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    data = study.measure(runs, profile, data_home=data_home)
    # a study may hand on a run's own dataset with its title; the study's is the one wanted
    data.attrs["title"] = study.title
    data.attrs.setdefault("source", study.source)
    save(data, folder / "data.nc")
    figures = []
    with styled():  # figures of the theory and of other packages too
        drawings = study.draw(data)
    for drawing in drawings:
        path = folder / f"{drawing.name}.svg"
        with writing("the figure", path):
            file = save_figure(drawing.canvas, path)
        figures.append(Figure(file.name, drawing.caption, drawing.alt))
    findings = Findings(
        name=study.name,
        title=study.title,
        source=study.source,
        look_for=study.look_for,
        order=study.order,
        figures=tuple(figures),
        tables=tuple(legible(table) for table in study.tables(data)),
        claims=tuple(study.claims(data)),
        notes=tuple(study.notes(data)),
        runs=tuple(config.name for config in runs),
        profile=profile.name,
    )
    with writing("the study", folder):
        findings.write(folder)
    return findings
