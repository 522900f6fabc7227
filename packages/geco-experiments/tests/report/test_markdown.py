"""Markdown of what studies found: every claim and table, nothing broken by its content."""

import pytest

from geco_experiments import cli
from geco_experiments.report.markdown import markdown, table
from geco_experiments.results.findings import Claim, Findings, Table


def findings(name, order, **values):
    return Findings(name=name, title=f"About {name}", source="[ours]", look_for="x", order=order,
                    **values)  # fmt: skip


def test_claims_come_first_and_name_their_study():
    claim = Claim("A holds", "if b < 1", "b = 0.5", "does not hold here")
    text = markdown([findings("one", 1), findings("two", 2, claims=(claim,))])
    assert "| two | A holds | b = 0.5 | **does not hold here** | if b < 1 |" in text
    assert (
        text.index("does not hold here") < text.index("## About one") < text.index("## About two")
    )


def test_tables_and_notes_are_all_there():
    one = findings(
        "one", 1, tables=(Table("Errors.", ("κ", "RMS"), (("0.1", "0.1003"),)),), notes=("Mind.",)
    )
    text = markdown([one], level=3)
    assert "### About one" in text
    assert "Errors.\n\n| κ | RMS |\n| --- | --- |\n| 0.1 | 0.1003 |" in text
    assert text.endswith("Mind.\n")
    assert "Claims" not in text


def test_cells_cannot_break_a_table():
    rows = table(("KL(q(z|x))", "b"), [("one\ntwo", "3")]).splitlines()
    assert rows == ["| KL(q(z\\|x)) | b |", "| --- | --- |", "| one two | 3 |"]


def test_the_command_writes_it_beside_the_page(tmp_path, capsys):
    findings("one", 1, tables=(Table("t", ("a",), (("1",),)),)).write(tmp_path / "studies" / "one")
    target = tmp_path / "new" / "results.md"
    assert cli.main(["report", str(tmp_path), "--markdown", str(target)]) == 0
    assert "## About one" in target.read_text("utf-8")
    assert (tmp_path / "index.html").exists()


@pytest.mark.parametrize("place", ["studies/one/study.json/x.md", "studies"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, capsys, place):
    findings("one", 1).write(tmp_path / "studies" / "one")
    assert cli.main(["report", str(tmp_path), "--markdown", str(tmp_path / place)]) == 2
    told = capsys.readouterr().err
    assert str(tmp_path / place) in told
    assert "Traceback" not in told
