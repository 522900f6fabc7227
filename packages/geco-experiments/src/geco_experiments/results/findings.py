"""What a study found, as plain data on disk: figures, tables, claims. The report reads only this.

A study leaves one folder::

    studies/<name>/study.json     title, what to look for, captions, tables, claims, runs used
    studies/<name>/data.nc        the numbers behind every figure and table (xarray.Dataset)
    studies/<name>/<figure>.svg   one file per figure

Nothing here depends on how the numbers were made, so a report can be rebuilt years later.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from geco_experiments.runtime.atomic import write_text_atomic

__all__ = ["Claim", "Figure", "Findings", "Table", "Verdict", "read_findings"]

Verdict = Literal["holds", "does not hold here", "not decided"]

FORMAT = 1


@dataclass(frozen=True)
class Figure:
    """One drawn figure: a file beside `study.json`, a caption, and words for who cannot see it."""

    file: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """A small table of strings and numbers, already rounded for reading."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, the rule that decides on it, the measured effect, the verdict.

    The rule is part of the study's source and so is written before the runs are made.
    """

    claim: str
    rule: str
    measured: str
    verdict: Verdict


@dataclass(frozen=True)
class Findings:
    """All that the report shows of one study.

    With a `command` it was not made: the command says how it is.
    """

    name: str
    title: str
    source: str
    look_for: str
    order: int
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    profile: str = ""
    command: str = ""
    format: int = field(default=FORMAT)

    def write(self, folder: Path) -> Path:
        """Write `study.json` into `folder`, whole or not at all; returns its path."""
        path = folder / "study.json"
        write_text_atomic(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
        return path


def _rows(rows: list[list[Any]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(str(cell) for cell in row) for row in rows)


def read_findings(path: Path) -> Findings:
    """Read a `study.json`.

    Raises:
        ValueError: the file is not one that a study wrote, or a newer version wrote it.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = raw["format"]
        if known > FORMAT:
            msg = f"{path} has format {known}, this version reads up to {FORMAT}: upgrade it"
            raise ValueError(msg)
        tables = (
            Table(t["caption"], tuple(t["columns"]), _rows(t["rows"])) for t in raw["tables"]
        )
        return Findings(
            **{
                **raw,
                "figures": tuple(Figure(**figure) for figure in raw["figures"]),
                "tables": tuple(tables),
                "claims": tuple(Claim(**claim) for claim in raw["claims"]),
                "notes": tuple(raw["notes"]),
                "runs": tuple(raw["runs"]),
            }
        )
    except (
        AttributeError,
        KeyError,
        OSError,
        RecursionError,
        TypeError,
        json.JSONDecodeError,
        UnicodeDecodeError,
    ) as error:
        msg = f"{path} is not a study's summary ({error}): run `geco reproduce` again to remake it"
        raise ValueError(msg) from error
