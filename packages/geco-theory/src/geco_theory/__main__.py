"""Run the command as `python -m geco_theory`."""

from geco_theory.cli import main

raise SystemExit(main())
