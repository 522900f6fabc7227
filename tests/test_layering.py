"""The house rules that no single package can test: who may import whom, and one version."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    "geco_core": {"torch"},
    "geco_models": {"torch"},
    "geco_theory": {"numpy", "scipy", "sklearn", "xarray", "joblib", "matplotlib", "tqdm"},
}
OURS = {"geco_core", "geco_models", "geco_theory", "geco_experiments"}


def folder(name: str) -> Path:
    return ROOT / "packages" / name.replace("_", "-")


def imports(path: Path) -> set[str]:
    """Top-level names that a source file imports, wherever in the file the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_packages_below_experiments_import_none_of_the_others(name):
    files = sorted((folder(name) / "src").rglob("*.py"))
    assert files
    for path in files:
        assert not imports(path) & (OURS - {name}), path


def test_theory_never_imports_torch():
    for path in sorted((folder("geco_theory") / "src").rglob("*.py")):
        assert "torch" not in imports(path), path


def test_one_version_everywhere():
    versions = {}
    for name in sorted(OURS):
        project = tomllib.loads((folder(name) / "pyproject.toml").read_text("utf-8"))["project"]
        versions[name] = project["version"]
        module = (folder(name) / "src" / name / "__init__.py").read_text("utf-8")
        assert f'__version__ = "{project["version"]}"' in module, name
    assert len(set(versions.values())) == 1, versions
