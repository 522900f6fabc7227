import doctest
import importlib
import pkgutil

import pytest

import geco_theory

MODULES = [
    module.name
    for module in pkgutil.walk_packages(geco_theory.__path__, "geco_theory.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_printed(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_there_are_examples() -> None:
    modules = [importlib.import_module(name) for name in MODULES]
    finder = doctest.DocTestFinder(exclude_empty=True)
    assert sum(len(t.examples) for m in modules for t in finder.find(m)) >= 5
