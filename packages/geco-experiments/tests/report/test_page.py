import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import xarray as xr

from geco_experiments.report import ReportError, build_report
from geco_experiments.results import schema
from geco_experiments.results.findings import Claim, Figure, Findings, Table

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="2" height="2"/>'
CLAIM = Claim("GECO reaches κ", "within 2%", "0.4%", "does not hold here")


@pytest.fixture
def folder(tmp_path):
    """A results folder with one study and one run."""
    study = tmp_path / "studies" / "figure-4"
    study.mkdir(parents=True)
    (study / "plane.svg").write_text(SVG, "utf-8")
    Findings(
        name="figure-4",
        title="Information plane <of> runs",
        source="Figure 4 [paper]",
        look_for="the blue line",
        order=4,
        figures=(Figure("plane.svg", "KL against RE", 'a "plane"'),),
        tables=(Table("errors", ("κ", "RMS"), (("0.1", "0.1003"),)),),
        claims=(CLAIM,),
        runs=("digits-geco",),
        profile="smoke",
    ).write(study)
    run = tmp_path / "runs" / "digits-geco"
    run.mkdir(parents=True)
    xr.Dataset(
        {"final_rms_error": ("split", [0.1003, 0.104]), "final_kl": ("split", [9.0, 9.5])},
        coords={"split": ["train", "test"]},
        attrs={
            "config": json.dumps({"seed": 3}),
            "created": "2026-01-01",
            "schema": schema.SCHEMA,
            "schema_version": schema.VERSION,
        },
    ).to_netcdf(run / "run.nc", engine="h5netcdf")
    return tmp_path


class Page(HTMLParser):
    """The links, images and ids of a page."""

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.ids, self.tags = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.images.append(attributes)
        if "href" in attributes:
            self.links.append(attributes["href"])
        if "id" in attributes:
            self.ids.add(attributes["id"])


def test_the_page_holds_its_figures_and_fetches_nothing(folder):
    text = build_report(folder).read_text("utf-8")
    page = Page(text)
    assert [image["alt"] for image in page.images] == ['a "plane"']
    kind, _, content = page.images[0]["src"].partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert base64.b64decode(content).decode() == SVG
    assert "script" not in page.tags
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)


@pytest.mark.parametrize(("width", "share"), [("777.6pt", 100), ("388.8pt", 50), ("9999pt", 100)])
def test_a_figure_takes_its_share_of_the_widest(folder, width, share):
    """Drawn figures are scaled alike; a picture of somebody's own fills the page."""
    path = folder / "studies" / "figure-4" / "plane.svg"
    path.write_text(SVG.replace('width="2"', f'width="{width}"'), "utf-8")
    (image,) = Page(build_report(folder).read_text("utf-8")).images
    assert image["style"] == f"--share: {share:.1f}%"
    path.write_text(SVG, "utf-8")
    (image,) = Page(build_report(folder).read_text("utf-8")).images
    assert image["style"] == "--share: 100.0%"


def test_every_link_has_its_target(folder):
    page = Page(build_report(folder).read_text("utf-8"))
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert inner
    assert inner <= page.ids


def test_the_page_shows_claims_tables_configurations_and_escapes_text(folder):
    text = build_report(folder).read_text("utf-8")
    for shown in (
        "within 2%",
        "0.1003",
        "&#34;seed&#34;: 3",
        "RMS error 0.1003",
        "Information plane &lt;of&gt; runs",
        'class="verdict does-not-hold-here"',
        "made 2026-01-01",
    ):
        assert shown in text, shown


def test_a_folder_with_runs_alone_has_a_page(folder):
    for path in (folder / "studies" / "figure-4").iterdir():
        path.unlink()
    text = build_report(folder).read_text("utf-8")
    assert "digits-geco" in text
    assert 'id="claims"' not in text


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ReportError, match=r"holds neither studies.* nor runs"):
        build_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_run_is_named_and_the_old_page_stays(folder):
    page = build_report(folder)
    before = page.read_bytes()
    path = folder / "runs" / "digits-geco" / "run.nc"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ReportError, match=r"run\.nc cannot be read as a run"):
        build_report(folder)
    assert page.read_bytes() == before


def test_a_missing_or_foreign_figure_is_named(folder):
    study = folder / "studies" / "figure-4"
    (study / "plane.svg").unlink()
    with pytest.raises(ReportError, match=r"plane\.svg cannot be read"):
        build_report(folder)
    findings = Findings("figure-4", "t", "s", "l", 4, figures=(Figure("x.exe", "c", "a"),))
    replace(findings, profile="smoke").write(study)
    with pytest.raises(ReportError, match=r"x\.exe is no figure"):
        build_report(folder)
