"""Tables of numbers in text, as spreadsheets, pandas, R and instruments write them."""

import csv
import re
from dataclasses import dataclass

import numpy as np

from geco_theory._typing import Array

__all__ = ["TextTable", "parse_text"]

_SEPARATORS = (",", ";", "\t", "|", " ")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
_MISSING = {"", "na", "n/a", "nan", "null", "none", "-", "?", "."}
_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE
)
_SOME_ROWS = 50


@dataclass(frozen=True)
class TextTable:
    """Numbers, the names of their columns (empty without a header), and what was decided."""

    values: Array
    names: tuple[str, ...]
    notes: tuple[str, ...]


def decode(content: bytes, name: str) -> tuple[str, list[str]]:
    """Text of a file: UTF-8 or UTF-16 with a mark, otherwise Latin-1, with a note."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return content.decode("utf-16"), []
        except UnicodeDecodeError as error:
            raise ValueError(f"{name!r} is not a text file: its UTF-16 is broken.") from error
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        if b"\x00" in content:
            raise ValueError(f"{name!r} is not a text file: it holds zero bytes.") from None
        return content.decode("latin-1"), [f"{name} is not in UTF-8 and was read as Latin-1."]


def parse_text(content: bytes, name: str, tabs: bool = False) -> TextTable:
    """Read a table of numbers.

    A first row of names is a header, and so is one that only counts the columns. A first column
    without a name that counts or names the rows is left out. Every such decision is a note.

    Args:
        content: the bytes of the file.
        name: its name, for messages.
        tabs: whether the name says that tabs separate the columns.

    Raises:
        ValueError: the text holds no such table; the sentence names row and column.
    """
    text, notes = decode(content, name)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    told = re.fullmatch(r'"?sep=(.)"?', lines[0].strip()) if lines else None
    if told:
        lines = lines[1:]
    if not lines:
        raise ValueError(f"{name!r} is empty.")
    separator = told.group(1) if told else _separator(lines, tabs)
    rows = [[cell.strip() for cell in row] for row in _split(lines, separator)]
    if all(row[-1] == "" for row in rows) and len(rows[0]) > 1:
        rows = [row[:-1] for row in rows]
        notes.append(f"Every row of {name} ends with a separator, which was left out.")
    comma = separator != "," and _decimal_comma(rows)
    if comma:
        rows = [[cell.replace(",", ".") for cell in row] for row in rows]
        notes.append(f"Commas in the numbers of {name} were read as decimal points.")
    header = _header(rows)
    names: list[str] = rows[0] if header else []
    body = rows[1:] if header else rows
    if header:
        notes.append(f"The first row of {name} was read as a header.")
    if not body:
        raise ValueError(f"{name!r} has a header but no rows.")
    width = len(body[0])
    for i, row in enumerate(body):
        if len(row) != width:
            raise ValueError(
                f"{name!r}, row {i + 1} of the data has {len(row)} columns where the first has "
                f"{width} (columns separated by {_NAMES.get(separator, repr(separator))})."
            )
    names, body, dropped = _without_row_names(names, body, name)
    notes += dropped
    values = np.empty((len(body), len(body[0])))
    for i, row in enumerate(body):
        for j, cell in enumerate(row):
            values[i, j] = _value(cell, name, i, j, names)
    for j, column in enumerate(values.T):
        if _counts(column) and len(column) > 2 and values.shape[1] > 1:
            called = repr(names[j]) if names else f"number {j + 1}"
            notes.append(
                f"Column {called} counts the rows; if it is no feature, leave it out (--columns)."
            )
    return TextTable(values, tuple(names), tuple(notes))


def _split(lines: list[str], separator: str) -> list[list[str]]:
    if separator == " ":
        return [line.split() for line in lines]
    return [row for row in csv.reader(lines, delimiter=separator) if row]


def _separator(lines: list[str], tabs: bool) -> str:
    """The separator by which the most rows have one and the same number, more than one, of cells.

    Of two that do equally well the one that leaves more cells numbers, then the earlier one.
    """
    some = lines[:_SOME_ROWS]
    best, chosen = (-1.0, -1.0), " "
    for separator in ("\t", *_SEPARATORS) if tabs else _SEPARATORS:
        widths = [len(row) for row in _split(some, separator)]
        several = [width for width in widths if width > 1]
        if not several:
            continue
        usual = max(set(several), key=several.count)
        # R leaves out the name of the first column
        even = (widths.count(usual) + (widths[0] == usual - 1 > 1)) / len(widths)
        cells = [cell.strip() for row in _split(some, separator)[1:] for cell in row]
        cells = cells or [cell.strip() for cell in _split(some, separator)[0]]
        numbers = sum(_is_number(c) or _is_number(c.replace(",", ".")) for c in cells)
        score = (even, numbers / max(len(cells), 1))
        if score > best:
            best, chosen = score, separator
    return chosen


def _decimal_comma(rows: list[list[str]]) -> bool:
    """Whether numbers have commas for points: some cells have one comma, none has a point."""
    cells = [cell for row in rows[1:] or rows for cell in row]
    commas = any(re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", cell) for cell in cells)
    return commas and not any("." in cell and _is_number(cell) for cell in cells)


def _header(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns, or only counts them as pandas does."""
    first = rows[0]
    named = [cell for cell in first if cell.lower() not in _MISSING]
    if named and not any(_is_number(cell) for cell in named):
        return True
    if len(rows) < 2:
        return False
    counted = first[1:] if first[0] == "" else first
    begins = 1 if first[0] == "" and counted[:1] == ["1"] else 0
    return len(first) > 1 and counted == [str(begins + i) for i in range(len(counted))]


def _without_row_names(
    names: list[str], body: list[list[str]], file: str
) -> tuple[list[str], list[list[str]], list[str]]:
    """Without a first column that has no name of its own and names or counts the rows."""
    width = len(body[0])
    if not names or width < 2:
        return names, body, []
    first = [row[0] for row in body]
    counting = all(_is_number(cell) for cell in first) and _counts(np.array(first, dtype=float))
    words = not any(_is_number(cell) for cell in first)
    if len(names) == width - 1:
        if len(names) == 1 or not (counting or words):
            raise ValueError(
                f"{file!r}: the header has {len(names)} columns and the rows have {width}. If "
                "commas are decimal points, separate the columns by semicolons."
            )
    elif len(names) == width and (names[0] == "" or names[0].lower().startswith("unnamed")):
        if not (counting or words):
            return names, body, []
        names = names[1:]
    elif len(names) != width:
        raise ValueError(f"{file!r}: the header has {len(names)} columns and the rows {width}.")
    else:
        return names, body, []
    what = "counts" if counting else "names"
    note = f"The first column of {file} has no name and {what} the rows; it was left out."
    return names, [row[1:] for row in body], [note]


def _counts(column: Array) -> bool:
    """Whether a column is 0, 1, 2, ... or 1, 2, 3, ..."""
    return bool(column[0] in (0.0, 1.0) and (np.diff(column) == 1.0).all())


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _value(cell: str, file: str, row: int, column: int, names: list[str]) -> float:
    """A cell as a number, or a sentence that says where there is none."""
    if _is_number(cell):
        return float(cell)
    called = f" ({names[column]!r})" if names else ""
    place = f"{file!r}, row {row + 1} of the data, column {column + 1}"
    if cell == "":
        raise ValueError(f"{place}: the cell is empty{called}; remove or fill missing values.")
    if cell.lower() in _MISSING:
        raise ValueError(f"{place}: {cell!r} is missing{called}; remove or fill missing values.")
    raise ValueError(f"{place}: {cell!r} is not a number{called}; drop or encode that column.")
