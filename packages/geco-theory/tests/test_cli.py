import csv
import html.parser
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sklearn.datasets import make_blobs

from geco_theory.cli import main
from geco_theory.phase_transitions import PhaseTransitions
from geco_theory.report import writing
from geco_theory.report.collecting import collect, part
from geco_theory.report.page import render_report
from geco_theory.report.reading import Table

X = make_blobs(24, centers=3, cluster_std=0.5, random_state=2)[0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "blobs.npy"
    np.save(path, X)
    return path


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the page, which has its own test, to save time."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


def run(data: Path, *words: str) -> int:
    return main(["analyse", str(data), "--temperatures", "8", *words])


class Parser(html.parser.HTMLParser):
    """Collects what a page would fetch, and that its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_analyse_writes_the_page_the_dataset_and_the_tables(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "report"
    assert run(data, "--out", str(out)) == 0
    printed, progress = capsys.readouterr()
    assert str(out / "report.html") in printed
    assert "8/8" in progress
    names = {p.name for p in out.iterdir()}
    assert names == {"analysis.nc", "report.html", "path.csv", "transition.csv", "advice.csv"}

    expected = PhaseTransitions(temperatures=8).fit(X)
    with xr.open_dataset(out / "analysis.nc", engine="h5netcdf") as saved:
        assert saved.attrs["complete"] == 1
        assert saved.attrs["n_samples"] == 24
        path = part(saved, "path")
        assert path is not None
        for name in ("distortion", "rate", "free_energy", "n_clusters"):
            np.testing.assert_allclose(path[name], expected.path_[name], rtol=1e-9, atol=1e-12)
            assert path[name].attrs["units"]
        advice, curve, tree, moved = (
            part(saved, name) for name in ("advice", "curve", "tree", "transition")
        )
        assert advice is not None
        assert all(str(s).startswith("An RMS error of") for s in advice.sentence.values)
        assert curve is not None
        assert float(curve.rate[-1]) == 0.0
        assert tree is not None
        np.testing.assert_allclose(tree.mass.sum("cluster"), 1.0)
        assert moved is not None
        np.testing.assert_allclose(
            np.sort(moved.temperature), np.sort(expected.transitions_.temperature)
        )
    with (out / "path.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(r["rate"]) for r in rows] == pytest.approx(expected.path_.rate.values)

    page = (out / "report.html").read_text(encoding="utf-8")
    parser = Parser()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.sources) == 3
    assert all(s.startswith("data:image/svg+xml;base64,") for s in parser.sources)
    assert not re.search(r"<script|<link|url\(", page)
    assert f"{expected.critical_temperatures_[0]:.4g}" in page
    assert "$" not in page

    # parts that an interrupted analysis has not reached are left out of its page
    with xr.open_dataset(out / "analysis.nc", engine="h5netcdf") as saved:
        rest = saved[[k for k in saved.variables if str(k).startswith("advice_")]]
        page = render_report(rest.assign_attrs(complete=0, notes="One.\nTwo <b>."))
    assert "This analysis was interrupted" in page
    assert "Two &lt;b&gt;." in page
    assert "<img" not in page


def test_the_page_says_where_the_bound_is_an_estimate() -> None:
    analysis = PhaseTransitions(temperatures=6).fit(X)
    table = Table(X, "blobs", ())
    for search in ({}, {"search": "from a sample"}):
        analysis.path_["certificate"].attrs.update(search)
        page = render_report(collect(table, analysis, "0", complete=True))
        assert ("no strict bound" in page) is bool(search)
        assert ("is an estimate here" in page) is bool(search)


@pytest.mark.usefixtures("no_pictures")
def test_the_default_folder_is_named_after_the_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(data, "--quiet") == 0
    assert (tmp_path / "blobs-analysis" / "analysis.nc").is_file()


def test_equal_masses(data: Path, tmp_path: Path) -> None:
    assert run(data, "--masses", "equal", "--out", str(tmp_path / "o"), "--quiet") == 0
    with xr.open_dataset(tmp_path / "o" / "analysis.nc", engine="h5netcdf") as saved:
        assert saved.attrs["masses"] == "equal"
        assert part(saved, "advice") is None
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "Not shown for equal masses" in page


@pytest.mark.usefixtures("no_pictures")
def test_images_are_flattened_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "i.npy", X.reshape(24, 1, 2))
    assert run(tmp_path / "i.npy", "--out", str(tmp_path / "o"), "--quiet") == 0
    note = "24 arrays of 1 x 2 were flattened to 2 features each."
    assert note in capsys.readouterr().err
    with xr.open_dataset(tmp_path / "o" / "analysis.nc", engine="h5netcdf") as saved:
        assert saved.attrs["notes"] == note


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.full((5, 2), np.nan), "NaN or infinite"),
        (np.zeros((1, 2)), "at least two samples"),
        (np.ones((5, 2)), "no variance"),
        (np.ones(5), "shape (5,)"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    tmp_path: Path, content: np.ndarray, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "bad.npy", content)
    out = tmp_path / "out"
    assert run(tmp_path / "bad.npy", "--out", str(out)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_running_out_of_memory_is_one_sentence(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(PhaseTransitions, "fit", fails)
    assert run(data, "--out", str(tmp_path / "o"), "--quiet") == 2
    assert "not enough memory" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_the_module_is_the_command() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "geco_theory", "--version"], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert found.stdout.startswith("geco-theory ")


def test_bad_options(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.npy") == 2
    assert "does not exist" in capsys.readouterr().err
    assert run(data, "--out", str(data)) == 2
    assert "is a file" in capsys.readouterr().err
    for words in ([], ["analyse"], ["analyse", str(data), "--temperatures", "1"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2


def test_without_matplotlib_everything_but_the_page(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("matplotlib", "matplotlib.figure", "tqdm", "h5netcdf"):
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "o"
    assert run(data, "--out", str(out)) == 0
    printed = capsys.readouterr().err
    assert 'pip install "geco-theory[report]"' in printed
    assert re.search(r"8 of 8 temperatures, .*0 s", printed)
    assert {p.name for p in out.iterdir()} == {
        "analysis.nc", "path.csv", "transition.csv", "advice.csv",
    }  # fmt: skip
    with xr.open_dataset(out / "analysis.nc", engine="scipy") as saved:
        assert part(saved, "path") is not None


@pytest.mark.usefixtures("no_pictures")
def test_an_interrupt_keeps_what_is_done(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = PhaseTransitions.fit

    def interrupted(self: PhaseTransitions, X: np.ndarray, y: object = None) -> PhaseTransitions:
        show = self.progress

        def stop(state: dict[str, object]) -> None:
            if show is not None:
                show(state)
            if state["done"] == 5:
                raise KeyboardInterrupt

        return fit(self.set_params(progress=stop), X, y)

    monkeypatch.setattr(PhaseTransitions, "fit", interrupted)
    out = tmp_path / "o"
    assert run(data, "--out", str(out), "--quiet") == 130
    with xr.open_dataset(out / "analysis.nc", engine="h5netcdf") as saved:
        assert saved.attrs["complete"] == 0
        assert saved.sizes["temperature"] == 5


def test_a_real_signal_while_it_computes(tmp_path: Path) -> None:
    # left alone it would take minutes, so that the signal cannot come too late
    np.save(tmp_path / "b.npy", make_blobs(300, 8, centers=20, random_state=0)[0])
    out = tmp_path / "o"
    # without the page, which has its own test; and a shell's background jobs ignore the signal
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "sys.modules['matplotlib.figure'] = None; "
        "from geco_theory.cli import main; raise SystemExit(main())"
    )
    words = [sys.executable, "-c", program, "analyse", str(tmp_path / "b.npy")]
    process = subprocess.Popen(
        [*words, "--temperatures", "2000", "--out", str(out)],
        stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    seen = b""
    while not re.search(rb"[3-9]/2000", seen):
        more = process.stderr.read1(4096)
        assert more, seen.decode()
        seen += more
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    with xr.open_dataset(out / "analysis.nc", engine="h5netcdf") as saved:
        assert 3 <= saved.sizes["temperature"] < 2000
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_a_failed_write_leaves_the_old_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o"
    out.mkdir()
    (out / "analysis.nc").write_bytes(b"old")

    def fails(self: xr.Dataset, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(writing.xr.Dataset, "to_netcdf", fails)
    assert run(data, "--out", str(out), "--quiet") == 2
    assert (out / "analysis.nc").read_bytes() == b"old"
    assert [p.name for p in out.iterdir()] == ["analysis.nc"]


def test_what_the_options_ask_for_is_done(tmp_path: Path) -> None:
    rows = np.column_stack([X[:, 0], 1000 * X[:, 1], np.arange(len(X)) % 3])
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",", header="one,two,three", comments="")
    out = tmp_path / "out"
    code = main(
        [
            "analyse", str(tmp_path / "a.csv"), "--out", str(out), "--quiet",
            "--columns", "one,two", "--standardise", "--temperatures", "0.3,0.9",
            "--kappa", "0.5,0.25", "--direction",
            "cooling", "--tolerance", "1e-6", "--n-jobs", "1",
        ]
    )  # fmt: skip
    assert code == 0
    with xr.open_dataset(out / "analysis.nc", engine="h5netcdf") as saved:
        assert saved.attrs["n_features"] == 2
        assert saved.attrs["total_variance"] == pytest.approx(2.0)
        np.testing.assert_allclose(saved["temperature"], [0.3, 0.9])
        advice = part(saved, "advice")
        assert advice is not None
        np.testing.assert_allclose(advice["kappa"], [0.5, 0.25])
        assert np.isfinite(advice["forecast"]).all()


def test_the_path_ends_where_there_are_more_values_than_asked(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["analyse", str(data), "--out", str(out), "--quiet", "--max-values", "2"]) == 0
    with xr.open_dataset(out / "analysis.nc", engine="h5netcdf") as saved:
        counts = saved["path_n_clusters"].values
    assert (counts[1:] <= 2).all()
    assert counts[0] > 2


@pytest.mark.parametrize(
    "option",
    [
        ["--kappa", "0.1,x"],
        ["--kappa", "-1"],
        ["--temperatures", "1"],
        ["--temperatures", "0.5,0"],
        ["--tolerance", "0"],
        ["--max-values", "1"],
    ],
)
def test_options_out_of_range(data: Path, option: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["analyse", str(data), *option])
    assert stopped.value.code == 2
