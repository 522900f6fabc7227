"""`python -m geco_experiments` is the command `geco`."""

import sys

from geco_experiments.cli.entry_point import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
