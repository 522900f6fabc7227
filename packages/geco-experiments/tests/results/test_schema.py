"""The schema in the code and in `docs/runs.md` are one."""

import re
from pathlib import Path

from geco_experiments.results.schema import VARIABLES, VERSION

TEXT = (Path(__file__).parents[2] / "docs" / "runs.md").read_text("utf-8")


def test_every_variable_is_documented_with_its_dimensions_and_unit():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*\|[^|]*) \|", TEXT, flags=re.MULTILINE))
    assert set(rows) == set(VARIABLES)
    for name, variable in VARIABLES.items():
        dims, units = (cell.strip() for cell in rows[name].split("|"))
        assert dims == (", ".join(variable.dims) or "-"), name
        assert units == variable.units, name


def test_the_version_is_documented():
    assert f"schema version {VERSION}" in TEXT.lower()
