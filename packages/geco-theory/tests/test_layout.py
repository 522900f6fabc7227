"""No module hides behind a name that its folder exports."""

import importlib
import pkgutil
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


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_no_module_is_shadowed_by_a_name_of_its_folder(folder: Path) -> None:
    package = importlib.import_module(name_of(folder))
    for module in pkgutil.iter_modules([str(folder)]):
        found = getattr(package, module.name, None)
        assert found is None or isinstance(found, types.ModuleType), f"{package}.{module.name}"
