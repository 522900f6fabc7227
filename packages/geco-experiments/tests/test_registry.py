"""Datasets, models and studies of another package, by its entry points."""

import tomllib
from pathlib import Path

import pytest

from geco_experiments import cli, open_run, registry
from geco_experiments.config import RunConfig, replace

EXAMPLE = Path(__file__).parents[1] / "examples" / "geco-waves"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The example package as an installer would leave it."""
    groups = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    place = tmp_path / "site"
    info = place / "geco_waves-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: geco-waves\nVersion: 0.1.0\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    monkeypatch.syspath_prepend(str(place))
    registry._foreign.cache_clear()
    yield info
    registry._foreign.cache_clear()


def test_the_example_package(installed, tmp_path, capsys):
    assert registry.names("datasets")[-1] == "waves"
    words = ["--dataset", "waves", "--model", "wave-vae", "--latents", "2", "--model.hidden", "8"]
    words += ["--steps", "5", "--quiet", "--device", "cpu", "--training.marginal-samples", "10"]
    assert cli.main(["run", *words, "--out", str(tmp_path / "runs")]) == 0
    path = Path(capsys.readouterr().out.strip())
    run = open_run(path)
    assert path.parent.name.startswith("waves-wave-vae-geco-kappa0.1-seed0-")
    assert run["inputs"].shape[2:] == (1, 1, 32)
    assert cli.main(["data", "check", "waves"]) == 0


def test_the_example_study(installed, tmp_path, capsys, monkeypatch):
    import geco_waves

    few = geco_waves.WaveStudy.configs
    monkeypatch.setattr(
        geco_waves.WaveStudy,
        "configs",
        lambda self, profile: [replace(c, {"training.steps": 3}) for c in few(self, profile)],
    )
    words = ["--study", "waves", "--out", str(tmp_path), "--executor", "serial"]
    assert cli.main(["reproduce", *words]) == 0
    assert "Waves" in (tmp_path / "index.html").read_text("utf-8")


def test_a_package_that_cannot_be_imported(installed, tmp_path, capsys):
    (installed / "entry_points.txt").write_text(
        "[geco_experiments.datasets]\nbroken = nowhere_at_all:X\nodd = math:pi\n"
    )
    registry._foreign.cache_clear()
    for name, message in (("broken", "cannot be loaded"), ("odd", "must be a DatasetSpec")):
        words = ["run", "--dataset", name, "--out", str(tmp_path)]
        assert cli.main(words) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="did you mean conv-vae"):
        replace(RunConfig(), {"model.name": "conv-vea"})
