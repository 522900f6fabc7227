"""Sphinx configuration: Markdown pages and the packages' own docstrings."""

project = "GECO"
project_copyright = "2026, The GECO authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "GECO"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
nitpicky = False
# links to files of the repository that are not pages of this site, and the terms that
# scikit-learn's inherited docstrings link within its own site
suppress_warnings = ["myst.xref_missing", "ref.term", "ref.ref"]
