import json
from dataclasses import replace

import pytest

from geco_experiments.results.findings import Claim, Figure, Findings, Table, read_findings

FINDINGS = Findings(
    name="figure-9",
    title="A figure",
    source="Figure 9 [ours]",
    look_for="the line",
    order=9,
    figures=(Figure("a.svg", "β against κ", "a line"),),
    tables=(Table("numbers", ("κ", "RE"), (("0.1", "0.101"),)),),
    claims=(Claim("it works", "error < 2%", "1.3%", "holds"),),
    notes=("one seed",),
    runs=("run-1",),
    profile="smoke",
)


def test_what_is_written_is_what_is_read(tmp_path):
    assert read_findings(FINDINGS.write(tmp_path / "new")) == FINDINGS


def test_writing_leaves_one_file(tmp_path):
    FINDINGS.write(tmp_path)
    replace(FINDINGS, title="Another").write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]
    assert read_findings(tmp_path / "study.json").title == "Another"


def test_a_newer_format_says_so(tmp_path):
    path = FINDINGS.write(tmp_path)
    raw = json.loads(path.read_text("utf-8"))
    raw["format"] += 1
    path.write_text(json.dumps(raw), "utf-8")
    with pytest.raises(ValueError, match="format 2, this version reads up to 1"):
        read_findings(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', "\xff\xfe"])
def test_a_foreign_or_cut_file_is_named(tmp_path, content):
    path = tmp_path / "study.json"
    path.write_text(content, "latin-1")
    with pytest.raises(ValueError, match=r"study\.json is not a study's summary"):
        read_findings(path)
