"""The house: no module hidden behind a name that its folder exports, no circles, no big rooms."""

import ast
import importlib
import pkgutil
import statistics
import types
from pathlib import Path

import pytest

import geco_theory

ROOT = Path(geco_theory.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FOLDERS = sorted({file.parent for file in FILES})


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path) -> set[str]:
    """Modules of this package that a file imports when it is imported itself."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("geco_theory"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in NAMES else str(node.module))
    return found


NAMES = {name_of(file): file for file in FILES}


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_no_module_is_shadowed_by_a_name_of_its_folder(folder: Path) -> None:
    package = importlib.import_module(name_of(folder))
    for module in pkgutil.iter_modules([str(folder)]):
        found = getattr(package, module.name, None)
        assert found is None or isinstance(found, types.ModuleType), f"{package}.{module.name}"


def test_files_and_folders_are_small() -> None:
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert max(lines.values()) <= 400, max(lines, key=lambda file: lines[file])
    assert statistics.median(n for f, n in lines.items() if f.name != "__init__.py") <= 200
    for folder in FOLDERS:
        assert len([file for file in FILES if file.parent == folder]) <= 17, (
            folder
        )  # with __init__


def test_imports_go_one_way() -> None:
    state: dict[str, str] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != "open", " -> ".join((*trail, name))
        if name in state:
            return
        state[name] = "open"
        for other in imported(NAMES[name]):
            visit(other, (*trail, name))
        state[name] = "done"

    for name in NAMES:
        visit(name, ())
