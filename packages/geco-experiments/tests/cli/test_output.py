"""Results on stdout, messages on stderr; configuration files; own data by one command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from geco_experiments import cli, open_run
from geco_experiments.cli.commands import axes
from geco_experiments.runtime.progress import LineMeter

SHORT = [
    "--steps", "4", "--batch-size", "8", "--model", "mlp-vae", "--latents", "2",
    "--model.hidden", "8", "--training.marginal-samples", "10", "--device", "cpu",
    "--execution.threads", "1",
]  # fmt: skip


@pytest.fixture
def geco(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert code == 0, err
        return out, err

    return call


@pytest.fixture
def signals(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "signals.npz", signals=rng.normal(size=(60, 12)))
    return "signals.npz"


def test_stdout_is_the_path_and_nothing_else(geco):
    out, err = geco("run", *SHORT)
    assert Path(out.strip()).name == "run.nc"
    assert "held out RMS error" in err
    assert "\r" not in err  # no terminal: whole lines
    again, err = geco("run", *SHORT, "--quiet")
    assert (again, err) == (out, "")


def test_json(geco):
    out, _ = geco("run", *SHORT, "--json", "--quiet")
    found = json.loads(out)
    run = open_run(found["path"])
    assert found["rms_error_train"] == pytest.approx(float(run["final_rms_error"][0]))
    assert (found["kappa"], found["seed"], found["model"]) == (0.1, 0, "mlp-vae")
    out, _ = geco("sweep", "--vary", "seed=0,1", *SHORT, "--json", "--executor", "serial")
    assert len(json.loads(out)) == 2
    out, _ = geco("show", "runs", "--json")
    assert {run["seed"] for run in json.loads(out)} == {0, 1}
    out, _ = geco("run", *SHORT, "--objective", "elbo", "--json", "--quiet")
    assert json.loads(out)["kappa"] is None


def test_every_run_writes_a_configuration_that_makes_it_again(geco, tmp_path):
    out, _ = geco("run", *SHORT, "--kappa", "0.3", "--seed", "7")
    path = Path(out.strip()).with_name("config.json")
    again, _ = geco("run", "--config", path, "--out", "elsewhere")
    assert Path(again.strip()).parent.name == path.parent.name
    changed, _ = geco("run", f"--config={path}", "--seed", "8")
    assert open_run(changed.strip()).attrs["seed"] == 8
    assert open_run(changed.strip()).attrs["kappa"] == 0.3
    out, _ = geco("sweep", "--config", path, "--vary", "seed=7,8", "--executor", "serial")
    assert len(out.splitlines()) == 2


def test_an_axis_given_twice_has_both_lots_of_values():
    assert axes(["seed=0", "seed=1,0", "objective.kappa=0.1"]) == {
        "seed": [0, 1],
        "objective.kappa": [0.1],
    }


def test_signals_give_a_run_a_curve_and_a_page(geco, signals):
    geco("run", "--dataset", signals, *SHORT)
    out, _ = geco(
        "curve", "--dataset", signals, *SHORT, "--kappas", "0.1", "0.2", "--executor", "serial"
    )
    text = Path(out.strip()).read_text("utf-8")
    assert text.count("<img") >= 3  # the curve, and each run's history and examples
    assert "What an error costs" in text or "the KL at each RMS error" in text
    assert "signals-mlp-vae" in text
    assert geco("report", "runs")[0] == out


def test_one_run_over_a_range_gives_a_curve_and_a_page(geco, signals):
    words = ["curve", "--dataset", signals, *SHORT, "--kappa", "0.1..0.3"]
    out, _ = geco(*words, "--executor", "serial")
    text = Path(out.strip()).read_text("utf-8")
    assert "one run over a range of κ" in text
    line = xr.load_dataset("runs/curve-signals-mlp-vae.nc", engine="h5netcdf")
    assert line.sizes == {"seed": 1, "kappa": 7, "split": 2}
    for name in ("rate", "rms_error", "slope", "price", "active_latents", "least_rate"):
        assert np.isfinite(line[name]).all(), name
    told, _ = geco("show", "runs")
    assert "geco-range-kappa0.1..0.3" in told
    (facts,) = json.loads(geco("show", "runs", "--json")[0])
    assert len(facts["kappa"]) == len(facts["kl_train"]) == 7
    # a second time nothing is made again, and limits can be left out
    assert geco(*words, "--executor", "serial", "--no-limits")[0] == out
    assert "least_rate" not in xr.load_dataset("runs/curve-signals-mlp-vae.nc", engine="h5netcdf")


def test_a_folder_of_pictures_gives_a_run(geco, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "faces").mkdir()
    for index in range(20):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / f"{index}.png")
    out, _ = geco("run", "--dataset", "faces", "--steps", "2", "--device", "cpu", "--quiet",
                  "--batch-size", "4", "--training.marginal-samples", "0")  # fmt: skip
    run = open_run(out.strip())
    assert run.attrs["model"] == "conv-vae"
    assert run.attrs["dataset"] == "faces"
    assert run["reconstructions"].shape[2:] == (3, 8, 8)
    assert "faces" in Path(geco("report", "runs")[0].strip()).read_text("utf-8")


def python(code, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False,
        **options,
    )  # fmt: skip


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from geco_experiments.cli import main; main(['--help']); print(*sys.modules)"
    )
    out = python(code).stdout
    assert "usage: geco COMMAND" in out
    assert not {"torch", "xarray", "numpy", "matplotlib", "sklearn"} & set(out.split())


def test_nobody_reads_the_output(geco):
    geco("run", *SHORT, "--quiet")
    code = "import sys; from geco_experiments.cli import main; sys.exit(main(['show', 'runs']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 141
    assert done.stderr == ""


def test_whole_lines_now_and_then():
    said = []
    meter = LineMeter(said.append, every=1000.0)
    meter.start("run", 10, 0)
    for step in range(1, 11):
        meter.report(step, {"KL": 1.5})
    meter.report(10, {"KL": 1.5})
    assert said == ["run: 10 of 10 steps; KL=1.5"]


def test_a_fault_of_the_program_is_a_sentence_with_its_story_in_a_file(capsys, monkeypatch):
    monkeypatch.setattr("geco_experiments.cli.data.data_main", lambda argv: 1 / 0)
    assert cli.main(["data", "check"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert len(err.splitlines()) == 1
    path = Path(err.rpartition("where it was: ")[2].strip().rstrip(")"))
    assert "Traceback" in path.read_text()
    path.unlink()
    monkeypatch.setenv("GECO_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["data", "check"])


def test_the_paper_profile_needs_a_gpu(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["reproduce", "--profile", "paper", "--out", str(tmp_path / "out")]) == 2
    assert "--device cpu" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_vectors_need_no_word_about_the_model(geco, signals):
    words = ["--steps", "3", "--batch-size", "8", "--device", "cpu", "--quiet"]
    out, _ = geco("run", "--dataset", signals, *words, "--training.marginal-samples", "0")
    assert open_run(out.strip()).attrs["model"] == "mlp-vae"
