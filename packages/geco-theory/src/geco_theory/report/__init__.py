"""The command's work around the analysis: reading samples, collecting, writing, one HTML page."""

from geco_theory.report.collecting import collect, part
from geco_theory.report.page import render_report
from geco_theory.report.reading import Table, read_table

__all__ = ["Table", "collect", "part", "read_table", "render_report"]
