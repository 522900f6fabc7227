"""Every public name says what it is: a docstring, types, arguments, errors and units.

What a docstring must say depends on what the name is; the rules are those of CONTRIBUTING.md.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator

import pytest
from sources import PACKAGES


def public(package: str) -> dict[str, object]:
    module = importlib.import_module(package)
    return {name: getattr(module, name) for name in module.__all__ if not name.startswith("__")}


NAMES = [(package, name) for package in PACKAGES for name in public(package)]


def callables(thing: object) -> list[tuple[str, object]]:
    """A function itself, or the public methods that a class of ours defines."""
    if inspect.isfunction(thing):
        return [(thing.__name__, thing)]
    if not inspect.isclass(thing):
        return []
    return [
        (f"{thing.__name__}.{name}", value)
        for name, value in vars(thing).items()
        if inspect.isfunction(value) and not name.startswith("_")
    ]


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda text: text)
def test_it_is_described(package, name):
    thing = public(package)[name]
    text = inspect.getdoc(thing) or ""
    assert len(text.split()) >= 4, name
    # a dataclass without a docstring gets its signature as one
    assert not text.startswith(f"{name}("), name
    if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
        source = inspect.getsource(thing)
        for field in dataclasses.fields(thing):
            if field.name.startswith("_"):
                continue
            after = re.search(
                rf'^    {field.name}:[^\n]*(?:\n      [^\n]*|\n    [)\]][^\n]*)*\n    r?"""',
                source,
                re.M,
            )
            assert after or re.search(rf"\b{field.name}\b", text), f"{name}.{field.name}"


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda text: text)
def test_its_methods_are_described_and_typed(package, name):
    for label, function in callables(public(package)[name]):
        assert inspect.getdoc(function), label
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, label
        for argument in signature.parameters.values():
            if argument.name not in {"self", "cls"}:
                assert argument.annotation is not inspect.Parameter.empty, f"{label}: {argument}"


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda text: text)
def test_its_arguments_are_explained(package, name):
    thing = public(package)[name]
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return
    if inspect.isclass(thing) and (
        dataclasses.is_dataclass(thing)
        or issubclass(thing, BaseException)
        or getattr(thing, "_is_protocol", False)
        or "__init__" not in vars(thing)
    ):
        return  # fields are looked at above; an inherited constructor is its own class's
    text = inspect.getdoc(thing) or ""
    signature = inspect.signature(thing.__init__ if inspect.isclass(thing) else thing)
    for argument in signature.parameters.values():
        if argument.name in {"self", "cls"} or argument.name.startswith("_"):
            continue
        assert re.search(rf"\b{argument.name}\b", text), f"{name}: `{argument.name}`"


def raised(function: object) -> set[str]:
    """The names of the exceptions that a function raises itself."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Raise) and child.exc is not None:
                error = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
                name = ast.unparse(error).rpartition(".")[2]
                if name[0].isupper() and name != "NotImplementedError":
                    yield name
            if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
                yield from walk(child)

    source = textwrap.dedent(inspect.getsource(function))
    return set(walk(ast.parse(source).body[0]))


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda text: text)
def test_its_errors_are_described(package, name):
    thing = public(package)[name]
    if inspect.isclass(thing) and not getattr(thing, "_is_protocol", False):
        for method in ("__init__", "__post_init__"):
            function = vars(thing).get(method)
            # what dataclasses write has no source
            if inspect.isfunction(function) and function.__code__.co_filename != "<string>":
                text = f"{inspect.getdoc(thing)} {function.__doc__}"
                assert {e for e in raised(function) if e not in text} == set(), method
    for label, function in callables(thing):
        text = inspect.getdoc(function) or ""
        assert {e for e in raised(function) if e not in text} == set(), label
