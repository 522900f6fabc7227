"""Modules of the first version are still where they were."""

import geco_experiments.commands as commands
from geco_experiments.cli import commands as moved
from geco_experiments.data_home import DataHome
from geco_experiments.datasets.home import DataHome as MovedDataHome


def test_the_commands_are_the_very_same_module():
    """What somebody replaces in one must be replaced in the other."""
    assert commands is moved


def test_the_data_home_is_the_same_class():
    assert DataHome is MovedDataHome
