"""One page, or one text, from a folder of studies and runs."""

from geco_experiments.report.page import ReportError, build_report, read_studies

__all__ = ["ReportError", "build_report", "read_studies"]
