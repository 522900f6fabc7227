"""Who may import whom, and that what is imported is what is declared.

Three sets are compared for each package: what its sources import, what its `pyproject.toml`
declares, and what this file says that it may stand on.
"""

import re
import sys
import tomllib

import pytest
from sources import PACKAGES, folder, graph, imports, source

#: distribution -> the names that it is imported under, where they differ
IMPORTED_AS = {
    "scikit_learn": {"sklearn"},
    "pillow": {"PIL"},
    "distributed": {"distributed", "dask"},
}
#: what each package may stand on; nobody adds a dependency without this line
ALLOWED = {
    "geco_core": {"torch"},
    "geco_models": {"torch"},
    "geco_theory": {"numpy", "scipy", "sklearn", "xarray", "joblib", "threadpoolctl"},
    "geco_experiments": {
        "PIL", "geco_core", "geco_models", "geco_theory", "h5netcdf", "h5py", "jinja2", "joblib",
        "matplotlib", "numpy", "pooch", "requests", "scipy", "sklearn", "torch", "tqdm", "tyro",
        "xarray",
    },
}  # fmt: skip
#: what each may stand on in part, through an extra
ALLOWED_EXTRAS = {
    "geco_core": set(),
    "geco_models": set(),
    "geco_theory": {"matplotlib", "tqdm", "h5netcdf", "h5py"},
    "geco_experiments": {"distributed", "dask"},
}
#: declared, used and never imported: h5py is what h5netcdf reads files with
ENGINES = {"h5netcdf", "h5py"}
#: geco_core/integrations/NAME.py may import the framework that it is for: nothing imports it but
#: those who use that framework
FRAMEWORKS = {
    "lightning": {"lightning", "pytorch_lightning"},
    "transformers": {"transformers"},
}


def requirement(text: str) -> set[str]:
    """The names that a requirement can be imported under, its extras' requirements included."""
    name, extras = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?.*", text).groups()
    name = name.lower().replace("-", "_")
    found = set(IMPORTED_AS.get(name, {name}))
    if name == "h5netcdf" and extras:
        found |= set(extras.split(","))
    return found


def declared(package: str) -> tuple[set[str], set[str]]:
    """What a package requires, and what its extras require."""
    project = tomllib.loads((folder(package) / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    return (
        set().union(*map(requirement, project["dependencies"])),
        set().union(*(requirement(r) for group in extras.values() for r in group)),
    )


def third_party(package: str) -> dict[str, set[str]]:
    """Imported top-level names by how they are imported: `always` or `late` (in functions)."""
    found: dict[str, set[str]] = {"always": set(), "late": set()}
    for path in sorted(source(package).rglob("*.py")):
        names = {"always": set(), "late": set()}
        for name in imports(path):
            if name.top not in sys.stdlib_module_names and name.top != package and name.top:
                late = name.typing_only or not name.at_import
                names["late" if late else "always"].add(name.top)
        if path.parent.name == "integrations":
            for which in names.values():
                which -= FRAMEWORKS.get(path.stem, set())
        for how, which in names.items():
            found[how] |= which
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_declared_is_allowed(package):
    needed, extras = declared(package)
    assert needed == ALLOWED[package]
    assert extras == ALLOWED_EXTRAS[package]


@pytest.mark.parametrize("package", PACKAGES)
def test_imported_is_declared(package):
    needed, extras = declared(package)
    found = third_party(package)
    # what is imported with the module must come with the package, without any extra
    assert found["always"] - needed == set()
    assert found["late"] - needed - extras == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_declared_is_imported(package):
    needed, extras = declared(package)
    found = third_party(package)
    assert (needed | extras) - found["always"] - found["late"] - ENGINES == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_declared_twice(package):
    project = tomllib.loads((folder(package) / "pyproject.toml").read_text("utf-8"))["project"]
    names = [re.split(r"[^\w-]", text)[0] for text in project["dependencies"]]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("package", [p for p in PACKAGES if p != "geco_experiments"])
def test_packages_below_experiments_import_none_of_the_others(package):
    files = sorted(source(package).rglob("*.py"))
    assert files
    for path in files:
        assert not {name.top for name in imports(path)} & (set(PACKAGES) - {package}), path


def test_theory_never_imports_torch():
    for path in sorted(source("geco_theory").rglob("*.py")):
        assert "torch" not in {name.top for name in imports(path)}, path


def test_experiments_keep_to_public_names_of_the_others():
    for path in sorted(source("geco_experiments").rglob("*.py")):
        for name in imports(path):
            if name.top in set(PACKAGES) - {"geco_experiments"}:
                parts = [*name.module.split("."), name.name or ""]
                assert not any(part.startswith("_") for part in parts), f"{path}: {name}"


def test_nothing_imports_an_integration_but_its_user():
    edges = graph("geco_core")
    for name, others in edges.items():
        if not name.startswith("geco_core.integrations"):
            assert not any(other.startswith("geco_core.integrations") for other in others), name
