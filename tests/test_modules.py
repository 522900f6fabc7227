"""The sizes that keep a package readable, and no circles among its modules."""

import ast
import statistics

import pytest
from sources import PACKAGES, graph, modules, source

MOST_MODULES = 16
MOST_LINES = 400
MOST_MEDIAN_LINES = 200


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components with more than one node (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = []
            while not component or component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_import_each_other_without_circles(package):
    edges = graph(package)
    assert sum(map(len, edges.values())) > len(edges) / 2  # the graph was read
    assert circles(edges) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_holds_more_modules_than_a_reader_can_survey(package):
    folders: dict[str, int] = {}
    for path in modules(package).values():
        if path.name != "__init__.py":
            name = str(path.parent.relative_to(source(package)))
            folders[name] = folders.get(name, 0) + 1
    assert {name: n for name, n in folders.items() if n > MOST_MODULES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_short(package):
    lines = {
        name: len(path.read_text("utf-8").splitlines())
        for name, path in modules(package).items()
        if path.name != "__init__.py"
    }
    assert {name: n for name, n in lines.items() if n > MOST_LINES} == {}
    assert statistics.median(lines.values()) <= MOST_MEDIAN_LINES


def exported(path) -> set[str]:
    """The names in a module's `__all__`."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_bears_the_name_of_what_its_folder_exports(package):
    known = modules(package)
    for name, path in known.items():
        if path.name == "__init__.py":
            inner = {other.rpartition(".")[2] for other in known if other.startswith(f"{name}.")}
            direct = {part for part in inner if f"{name}.{part}" in known}
            assert exported(path) & direct == set(), f"{name}: import {name}.X is not the module"
