"""What may be done to a table before it is analysed: columns chosen, units taken away."""

import re
from dataclasses import replace

import numpy as np

from geco_theory.report.reading import Table

__all__ = ["prepare"]

_DOMINANT = 0.99  # share of the variance at which one column decides everything


def prepare(table: Table, columns: str | None = None, *, standardise: bool = False) -> Table:
    """Choose columns, standardise, and say where one column carries nearly all of the variance.

    Args:
        table: the samples.
        columns: names, or numbers from 1 on (``1,3-5``), commas between; None for all.
        standardise: bring every column to mean 0 and variance 1; columns that do not vary are
            left out.

    Raises:
        ValueError: a column that is not there, or none that varies.
    """
    if columns is not None:
        table = _chosen(table, columns)
    spread = table.X.std(axis=0)
    if standardise:
        varies = spread > 0
        if not varies.any():
            raise ValueError(f"{table.name!r} has no column that varies.")
        X = (table.X[:, varies] - table.X[:, varies].mean(axis=0)) / spread[varies]
        words = "Every column was brought to mean 0 and variance 1."
        if not varies.all():
            words += f" {int((~varies).sum())} that do not vary were left out."
        names = tuple(np.array(table.columns)[varies]) if table.columns else ()
        return replace(table, X=X, columns=names, notes=(*table.notes, words))
    variance = np.square(spread / (spread.max() or 1.0))
    largest = int(variance.argmax())
    if variance.size > 1 and variance[largest] > _DOMINANT * variance.sum():
        name = repr(table.columns[largest]) if table.columns else f"number {largest + 1}"
        share = 100 * variance[largest] / variance.sum()
        note = (
            f"Column {name} carries {share:.3g}% of the variance, so the analysis is one of that "
            "column; --standardise gives all the same weight."
        )
        return replace(table, notes=(*table.notes, note))
    return table


def _chosen(table: Table, columns: str) -> Table:
    """Only the columns asked for, in that order."""
    width = table.X.shape[1]
    index: list[int] = []
    for word in (part.strip() for part in columns.split(",")):
        between = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if word in table.columns:
            index.append(table.columns.index(word))
        elif between and 1 <= int(between[1]) <= int(between[2] or between[1]) <= width:
            index.extend(range(int(between[1]) - 1, int(between[2] or between[1])))
        else:
            known = ", ".join(repr(name) for name in table.columns[:12])
            raise ValueError(
                f"{table.name!r} has no column {word!r}; there are {width}"
                + (f": {known}." if known else ", numbered from 1.")
            )
    X = table.X[:, index]
    if (X[0] == X).all():
        raise ValueError(f"{table.name!r} has no variance in the columns {columns}.")
    names = tuple(table.columns[i] for i in index) if table.columns else ()
    return replace(table, X=X, columns=names, notes=(*table.notes, f"Columns used: {columns}."))
