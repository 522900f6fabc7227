"""The claims and tables of a results folder as Markdown, to go into a document or a message."""

import re
from collections.abc import Iterable, Sequence

from geco_experiments.results.findings import Findings

__all__ = ["markdown"]


def markdown(studies: Iterable[Findings], *, level: int = 2) -> str:
    """Every claim with its verdict, then the tables and notes of each study.

    Args:
        studies: what `read_findings` returned, in the order wanted.
        level: depth of the headings.

    Returns:
        The text, with a newline at its end.
    """
    studies = list(studies)
    mark = "#" * level
    parts = []
    claims = [
        (study.name, claim.claim, claim.measured, f"**{claim.verdict}**", claim.rule)
        for study in studies
        for claim in study.claims
    ]
    if claims:
        parts += [
            f"{mark} Claims",
            table(("study", "claim", "measured", "verdict", "rule"), claims),
        ]
    for study in studies:
        parts += [f"{mark} {study.title}", f"`{study.name}`. {study.source}."]
        for one in study.tables:
            parts += [one.caption, table(one.columns, one.rows)]
        parts += study.notes
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars and line breaks within cells are made harmless."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
