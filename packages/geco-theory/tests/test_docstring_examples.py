import doctest
import importlib
import pkgutil

import pytest

import geco_theory

MODULES = [m.name for m in pkgutil.iter_modules(geco_theory.__path__) if m.name != "__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_printed(name: str) -> None:
    module = importlib.import_module(f"geco_theory.{name}")
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_there_are_examples() -> None:
    modules = [importlib.import_module(f"geco_theory.{name}") for name in MODULES]
    finder = doctest.DocTestFinder(exclude_empty=True)
    assert sum(len(t.examples) for m in modules for t in finder.find(m)) >= 5
