"""Reading the sources as text: modules, what they import, which files the repository has."""

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("geco_core", "geco_models", "geco_theory", "geco_experiments")


def folder(package: str) -> Path:
    """The folder of a package's project."""
    return ROOT / "packages" / package.replace("_", "-")


def source(package: str) -> Path:
    """The folder of a package's modules."""
    return folder(package) / "src" / package


@cache
def tracked(*patterns: str) -> tuple[Path, ...]:
    """The files of the repository: all that git has, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = (ROOT / name for name in listed.stdout.splitlines())
    return tuple(file for file in files if file.exists())


@dataclass(frozen=True)
class Import:
    """One name that a module imports."""

    module: str
    """The module that is named, such as `scipy.linalg`."""
    name: str | None
    """What is taken from it, None for a plain `import`."""
    at_import: bool
    """Whether it is executed when the importing module is imported."""
    typing_only: bool
    """Whether it stands under `if TYPE_CHECKING:`."""

    @property
    def top(self) -> str:
        """The first part of the module's name."""
        return self.module.partition(".")[0]


def _is_typing(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def _walk(body: list[ast.stmt], at_import: bool, typing_only: bool, package: str) -> list[Import]:
    found = []
    for node in body:
        if isinstance(node, ast.Import):
            found += [Import(alias.name, None, at_import, typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*parts, module] if module else parts)
            found += [Import(module, a.name, at_import, typing_only) for a in node.names]
        elif isinstance(node, ast.If) and _is_typing(node.test):
            found += _walk(node.body, at_import, True, package)
            found += _walk(node.orelse, at_import, typing_only, package)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for field in ("body", "orelse", "finalbody"):
                block = getattr(node, field, [])
                found += _walk(block, at_import and not inside, typing_only, package)
            for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                found += _walk(part.body, at_import, typing_only, package)
    return found


def imports(path: Path, package: str = "") -> list[Import]:
    """What a source file imports, wherever in the file the import stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    by_name = [
        Import(node.args[0].value, None, at_import=False, typing_only=False)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"import_module", "importlib.import_module"}
        and isinstance(node.args[0], ast.Constant)
    ]
    return [*_walk(tree.body, True, False, package), *by_name]


def modules(package: str) -> dict[str, Path]:
    """The modules of a package by their full names."""
    root = source(package)
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (package, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(package: str) -> dict[str, set[str]]:
    """Which modules of a package each of its modules imports, imports in functions included."""
    known = modules(package)
    edges: dict[str, set[str]] = {}
    for name, path in known.items():
        home = name if path.name == "__init__.py" else name.rpartition(".")[0]
        edges[name] = set()
        for found in imports(path, home):
            if found.top != package or found.typing_only:
                continue
            inner = f"{found.module}.{found.name}"
            edges[name].add(inner if inner in known else found.module)
        edges[name].discard(name)
    return edges
