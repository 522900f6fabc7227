"""Sphinx configuration: Markdown pages, executed notebooks, and the packages' own docstrings."""

import importlib
import importlib.metadata
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

project = "GECO"
project_copyright = "2026, The GECO authors"
release = importlib.metadata.version("geco-core")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute"]

# pages
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
# the notebooks carry their outputs; `nox -s gallery` makes them anew
nb_execution_mode = "off"
nb_merge_streams = True

# reference
autosummary_generate = False
autodoc_mock_imports = ["lightning", "pytorch_lightning", "transformers"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_type_aliases = {"Array": "numpy.ndarray"}
napoleon_use_ivar = True
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
nitpicky = False
# links to files of the repository that are not pages of this site, and the terms that
# scikit-learn's inherited docstrings link within its own site
suppress_warnings = ["myst.xref_missing", "ref.term", "ref.ref"]

# look
html_theme = "furo"
html_title = "GECO"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
templates_path = ["_templates"]

# MathJax as one file of the site, so that it works without a network. The file comes from the
# package sphinx-mathjax-offline (MathJax 3.2.2, Apache-2.0) when the site is built.
mathjax_path = "tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}


def mathjax_file() -> Path:
    """MathJax as it is installed."""
    distribution = importlib.metadata.distribution("sphinx-mathjax-offline")
    return Path(
        str(distribution.locate_file(f"sphinx-mathjax-offline/static/mathjax/{mathjax_path}"))
    )


def copy_mathjax(app: Any) -> None:
    """Put MathJax beside the site's other static files."""
    target = Path(app.outdir) / "_static"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(mathjax_file(), target / mathjax_path)


class AllNames(Directive):
    """A table of all public names of a package with their first sentences."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The names in the package's `__all__`, as an autosummary table."""
        package = importlib.import_module(self.arguments[0])
        names = sorted(name for name in package.__all__ if not name.startswith("__"))
        lines = [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in names)]
        self.state_machine.insert_input(lines, self.state_machine.get_source(self.lineno))
        return []


def escape_stars(
    _app: Any, _what: str, _name: str, _obj: Any, _opts: Any, lines: list[str]
) -> None:
    """Leave shapes as they are written: the star of `(batch, *shape)` begins no emphasis."""
    star = re.compile(r"(?<=[(,] |.\()\*(?=\w)")
    for i, line in enumerate(lines):
        # not within literals and roles, where it stands for itself
        quoted = [line[: found.start()].count("`") % 2 for found in star.finditer(line)]
        if quoted and not any(quoted):
            lines[i] = star.sub(r"\\*", line)


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", escape_stars, priority=900)
    app.add_directive("all-names", AllNames)
    app.connect("builder-inited", copy_mathjax)
