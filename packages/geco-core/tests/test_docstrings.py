"""The examples in docstrings do what they say."""

import doctest
import importlib
import pkgutil

import pytest

import geco_core

#: need a framework; their examples are the recipes, which `tests/integrations` runs
CALLBACKS = {"geco_core.integrations.lightning", "geco_core.integrations.transformers"}
MODULES = sorted(
    {module.name for module in pkgutil.walk_packages(geco_core.__path__, prefix="geco_core.")}
    - CALLBACKS
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_there_are_examples_to_test():
    finder = doctest.DocTestFinder()
    tests = [t for n in MODULES for t in finder.find(importlib.import_module(n)) if t.examples]
    assert len(tests) >= 5
