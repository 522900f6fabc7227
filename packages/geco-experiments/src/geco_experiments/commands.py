"""The place of the commands in the first version: the module `geco_experiments.cli.commands`.

The same module under its old name, so that what is replaced in one is replaced in the other.
"""

import sys

from geco_experiments.cli import commands

sys.modules[__name__] = commands
