"""The notebooks of the documentation are kept with their outputs, and listed with a picture."""

import json
import re

import pytest
from sources import ROOT

FOLDER = ROOT / "docs" / "gallery"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path):
    return json.loads(path.read_text("utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_from_top_to_bottom_without_a_fault(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell["outputs"]):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_listed_with_one_of_its_pictures(path):
    (tagged,) = (c for c in cells(path) if "picture" in c["metadata"].get("tags", ()))
    assert sum("image/png" in output.get("data", {}) for output in tagged["outputs"]) == 1
    assert (FOLDER / "pictures" / f"{path.stem}.png").read_bytes().startswith(b"\x89PNG")
    page = (FOLDER / "index.md").read_text("utf-8")
    title = "".join(cells(path)[0]["source"]).splitlines()[0].removeprefix("# ")
    assert f"## [{title}]({path.name})" in page
    assert re.search(rf"\[!\[[^\]]+\]\(pictures/{path.stem}\.png\)\]\({path.name}\)", page)


def test_all_are_there():
    assert len(NOTEBOOKS) == 5
    pictures = {picture.stem for picture in (FOLDER / "pictures").iterdir()}
    assert pictures == {path.stem for path in NOTEBOOKS}
