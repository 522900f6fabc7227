"""The recipes for other frameworks: what they mark as changing is what changes, and is little."""

import ast
import re

import pytest
from sources import ROOT

PAGE = ROOT / "docs" / "frameworks.md"
RECIPE = re.compile(
    r"```\{literalinclude\} \.\./(\S+)\n:language: python\n:emphasize-lines: ([\d,-]+)\n```"
)
FOLDER = ROOT / "packages/geco-core/examples/frameworks"
MOST_LINES = 5


def recipes() -> dict[str, set[int]]:
    """The lines that the page marks, by the file that it shows."""
    found = {}
    for file, numbers in RECIPE.findall(PAGE.read_text("utf-8")):
        marked: set[int] = set()
        for part in numbers.split(","):
            first, _, last = part.partition("-")
            marked |= set(range(int(first), int(last or first) + 1))
        found[file] = marked
    return found


def changed(source: str) -> set[int]:
    """The lines of a script's statements that name anything of geco-core, or what is made of it.

    That a function returns the objective, and that a report is printed, is for the tests.
    """
    lines = source.splitlines()
    names = {"objective"}
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("geco_core"):
            names |= {alias.name for alias in node.names}
            found |= set(range(node.lineno, node.end_lineno + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            code = re.sub(r'""".*?"""', "", text, flags=re.DOTALL)
            told = re.search(r"\.report\(\)|^\s*return objective$", code)
            if not told and names & set(re.findall(r"\w+", code)):
                found |= set(range(node.lineno, node.end_lineno + 1))
    return found


def test_all_recipes_are_shown():
    shown = {name.rpartition("/")[2] for name in recipes()}
    assert shown == {path.name for path in FOLDER.glob("with_*.py")}


@pytest.mark.parametrize("file", recipes())
def test_a_recipe_marks_the_lines_that_change_and_they_are_few(file):
    source = (ROOT / file).read_text("utf-8")
    marked, lines = recipes()[file], source.splitlines()
    assert {n: lines[n - 1] for n in marked} == {n: lines[n - 1] for n in changed(source)}
    assert len(marked) <= MOST_LINES
