"""One self-contained HTML page from a folder of studies and runs.

The page reads `studies/*/study.json` and the attributes of `runs/*/run.nc`; it computes nothing.
Figures are inlined, nothing is fetched, no script runs: the file can be mailed or archived.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr

from geco_experiments import __version__
from geco_experiments.report.images import SVG, Image, embedded
from geco_experiments.report.run_figures import draw_runs
from geco_experiments.results.findings import Claim, Figure, Findings, read_findings
from geco_experiments.results.store import config_of, finals, find, open_run
from geco_experiments.runtime.atomic import remove_leftovers, write_text_atomic, writing
from geco_experiments.runtime.errors import GecoError, SchemaError
from geco_experiments.runtime.words import counted, spanned

__all__ = ["ReportError", "build_report", "read_studies"]

TITLE = "GECO: the figures of “Taming VAEs”, remade"
RUNS_TITLE = "GECO: runs"
OPENING = {"target": "curves", "linear-gaussian": "optimum", "figure-2": "phases-blobs"}
"""The studies that open the page, where they were made: a figure, and the first claim."""
MEDIA_TYPES = {".svg": SVG, ".png": "image/png"}
_NUMBER = re.compile(r"[-+−±≤≥<>~]?\s?[\d.,]+([eE][-+]?\d+)?\s?(%|s|nats|±.*)?$")


class ReportError(GecoError):
    """The folder holds nothing to report, or something in it cannot be read."""


def build_report(
    folder: Path, *, title: str = TITLE, opened: Mapping[Path, xr.Dataset] | None = None
) -> Path:
    """Write `index.html` into a results folder.

    Args:
        folder: the folder that `geco reproduce` or `geco run` wrote to, with `studies/` and
            `runs/` in it (either may be missing, not both).
        title: the page's heading.
        opened: runs that are open already, by path, which need not be read again.

    Returns:
        The path of the page.

    Raises:
        ReportError: there is nothing to report, or a study's files are damaged.
    """
    studies = read_studies(folder)
    paths = find(folder)
    known = opened or {}
    found = [known[path] if path in known else _open(path) for path in paths]
    runs = [_run_row(path, run) for path, run in zip(paths, found, strict=True)]
    if not studies and not runs:
        msg = (
            f"{folder} holds neither studies/*/study.json nor runs (*/run.nc, runs/*/run.nc): "
            "make some with `geco reproduce --out DIR` or `geco run --out DIR`"
        )
        raise ReportError(msg)
    opening = _opening(studies)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("geco_experiments"),
        autoescape=jinja2.select_autoescape(default=True),
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["counted"] = counted
    environment.tests["numberlike"] = lambda cell: bool(_NUMBER.match(str(cell)))
    page = environment.get_template("report.html.j2").render(
        title=title if studies else RUNS_TITLE,
        lead=_lead(studies),
        opening=opening,
        shown={(study.name, figure.file) for study, figure, _ in opening},
        later=[study for study in studies if study.command],
        run_figures=[
            {
                "image": embedded(one.svg, SVG),
                "caption": one.caption,
                "alt": one.alt,
            }
            for one in ([] if studies else draw_runs(found, folder / "limits"))
        ],
        provenance=_provenance(studies, runs),
        claims=[(study, claim) for study in studies for claim in study.claims],
        studies=[study for study in studies if not study.command],
        images={
            (study.name, figure.file): _inline(folder / "studies" / study.name, figure.file)
            for study in studies
            for figure in study.figures
        },
        runs=runs,
        closing=(
            "Method: Danilo Jimenez Rezende and Fabio Viola, “Taming VAEs”, arXiv:1810.00597. "
            "Marks: [paper] seen in the paper, [second-hand] reported by its readers, "
            "[derived] a result of this project, [ours] a choice of this project."
        ),
    )
    path = folder / "index.html"
    with writing("the page", path):
        remove_leftovers(folder)
        write_text_atomic(path, page)
    return path


def read_studies(folder: Path) -> list[Findings]:
    """What the studies of a results folder found, in the order of the page.

    Raises:
        ReportError: a study's file is damaged.
    """
    try:
        paths = list((folder / "studies").glob("*/study.json"))
        found = [read_findings(path) for path in paths]
    except (OSError, ValueError) as error:
        raise ReportError(str(error)) from error
    for path, study in zip(paths, found, strict=True):
        if study.name != path.parent.name:
            msg = f"{path} is of the study {study.name!r}: its folder must bear that name"
            raise ReportError(msg)
    return sorted(found, key=lambda study: (study.order, study.name))


def _inline(folder: Path, file: str) -> Image:
    path = folder / file
    if path.suffix not in MEDIA_TYPES or path.parent.resolve() != folder.resolve():
        msg = f"{path.name} is no figure the report can show: allowed are {sorted(MEDIA_TYPES)}"
        raise ReportError(msg)
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"the figure {path} cannot be read ({error.strerror}): run its study again"
        raise ReportError(msg) from error
    return embedded(content, MEDIA_TYPES[path.suffix])


def _open(path: Path) -> xr.Dataset:
    try:
        run = open_run(path)
        config_of(run)
    except GecoError as error:
        msg = f"{path} cannot be read as a run ({error}): move it away and run it again"
        raise ReportError(msg) from error
    return run


def _run_row(path: Path, run: xr.Dataset) -> dict[str, str]:
    """The name, a summary, the configuration and the origin of one finished run."""
    attributes: dict[str, Any] = dict(run.attrs)
    numbers = {}
    for label, name, split in (
        ("train_rms", "rms_error", "train"),
        ("test_rms", "rms_error", "test"),
        ("train_kl", "kl", "train"),
    ):
        with contextlib.suppress(SchemaError):
            numbers[label] = finals(run, name, split)
    config = json.loads(str(attributes.get("config", "{}")))
    shown = {
        "train_rms": ("RMS error", ".4f"),
        "test_rms": ("held out", ".4f"),
        "train_kl": ("KL", ".1f"),
    }
    origin = [
        f"{label} {attributes[key]}"
        for key, label in (
            ("created", "made"),
            ("hardware", "on"),
            ("versions", "with"),
            ("git_commit", "commit"),
        )
        if attributes.get(key)
    ]
    return {
        "name": path.parent.name,
        "summary": ", ".join(
            f"{shown[name][0]} {spanned(values, shown[name][1])}"
            for name, values in numbers.items()
        ),
        "config": json.dumps(config, indent=1, ensure_ascii=False),
        "provenance": "; ".join(origin),
    }


def _opening(studies: list[Findings]) -> list[tuple[Findings, Figure, Claim]]:
    """Three pictures, each with the claim that it decides."""
    return [
        (study, figure, study.claims[0])
        for name in OPENING
        for study in studies
        for figure in study.figures
        if study.name == name and study.claims and Path(figure.file).stem == OPENING[name]
    ]


def _lead(studies: list[Findings]) -> str:
    if not studies:
        return "The runs of this folder, with the configuration that made each."
    return (
        "GECO trains a variational autoencoder to a reconstruction error that is asked for, in "
        "the units of the data, by adapting the multiplier of a constraint. This page remakes the "
        "paper's figures and says for each claim whether it holds here, and by how much."
    )


def _provenance(studies: list[Findings], runs: list[dict[str, str]]) -> str:
    profiles = sorted({study.profile for study in studies if study.profile})
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [f"Made {made} with geco-experiments {__version__}"]
    if profiles:
        parts.append(f"profile {', '.join(profiles)}")
    made_here = sum(not study.command for study in studies)
    parts.append(f"{counted(made_here, 'study', 'studies')} from {counted(len(runs), 'run')}")
    return "; ".join(parts) + "."
