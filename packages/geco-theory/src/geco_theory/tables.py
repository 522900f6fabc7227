"""The place of `read_table` in the first version; it is in `geco_theory.report` now."""

from geco_theory.report.reading import Table, read_table

__all__ = ["Table", "read_table"]
