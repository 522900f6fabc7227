"""What people mistype, misplace and break: one sentence and exit code 2, never a traceback."""

import json

import h5py
import numpy as np
import pytest

from geco_experiments import cli, results
from geco_experiments.config import RunConfig

SHORT = ["--steps", "2", "--device", "cpu", "--training.marginal-samples", "0", "--quiet"]


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder and asserts that it is refused in a sentence."""
    monkeypatch.chdir(tmp_path)

    def call(*words, code=2):
        try:
            got = cli.main([str(word) for word in words])
        except SystemExit as stop:  # how option parsers leave
            got = stop.code
        out, err = capsys.readouterr()
        assert got == code, (got, err)
        assert "Traceback" not in err + out
        assert "fault of this program" not in err
        assert err.strip() or code == 0
        return err

    return call


NUMBERS = {
    "--kappa": [
        "0",
        "-1",
        "nan",
        "inf",
        "1e-300",
        "1e300",
        "x",
        "",
        "..",
        "0.1..",
        "..0.2",
        "0.2..0.1",
        "0.1..0.1",
        "0..1",
        "a..b",
        "0.1..inf",
        "nan..1",
        "-1..1",
        "1e-300..1",
        "0.1..0.2..0.3",
    ],
    "--objective.kappa-grid": ["0.1", "x", "nan"],
    "--steps": ["0", "-3", "1.5", "1e30", "x", "9" * 40],
    "--seed": ["-1", "2147483648", "1.5", "x"],
    "--batch-size": ["0", "-1", "x"],
    "--latents": ["0", "-2", "1.5", "x"],
    "--learning-rate": ["0", "-1", "nan", "inf"],
    "--beta": ["0", "-1", "nan"],
    "--objective.sigma": ["0", "nan", "1e-300"],
    "--objective.rate": ["0", "-1", "inf"],
    "--objective.decay": ["1", "-0.1", "nan"],
    "--objective.patch-size": ["0", "-1"],
    "--objective.anneal-steps": ["0", "-1"],
    "--training.constant-share": ["1.5", "-1", "nan"],
    "--training.final-rate": ["2", "0", "nan"],
    "--training.gradient-clip": ["0", "nan"],
    "--training.marginal-samples": ["-1", "x"],
    "--training.evaluation-batch-size": ["0", "-5"],
    "--execution.threads": ["0", "-1", "1000000"],
    "--execution.checkpoint-seconds": ["-1", "nan"],
    "--dataset.train-limit": ["0", "-1"],
    "--dataset.test-share": ["0", "1", "-1", "nan"],
    "--dataset.split-seed": ["-1", "99999999999"],
    "--model.draw-steps": ["0", "100000"],
    "--model.couplings": ["0"],
    "--model.width": ["0", "-1"],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option in NUMBERS for value in NUMBERS[option]]
)
def test_numbers_out_of_range(refused, option, value):
    refused("run", f"{option}={value}")


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--dataset", "mnits"],
        ["run", "--dataset", ""],
        ["run", "--dataset", "nowhere/at/all"],
        ["run", "--dataset", "gone.npz"],
        ["run", "--dataset", "~nosuchuser/data.npz"],
        ["run", "--model", "vae"],
        ["run", "--model", "nvp-vae", "--latents", "1"],
        ["run", "--model", "conv-vae", "--latents", "999999999999"],
        ["run", "--model", "mlp-vae", "--model.hidden", "999999999999999"],
        ["run", "--objective", "gecko"],
        ["run", "--objective", "elbo", "--kappa", "0.1..0.2"],
        ["run", "--kappa", "0.1..0.2", "--objective.kappa-grid", "0.3"],
        ["run", "--constraint", "cla", "--kappa", "0.5..2"],
        ["curve", "--objective", "elbo"],
        ["run", "--constraint", "pncc", "--kappa", "2"],
        ["run", "--constraint", "cla", "--kappa", "2"],
        ["run", "--constraint", "ssim"],
        ["run", "--constraint", "pncc", "--objective.patch-size", "99", "--kappa", "0.5"],
        ["run", "--constraint", "fre", "--objective.patch-size", "99"],
        ["run", "--device", "toaster"],
        ["run", "--device", "meta"],
        ["run", "--config"],
        ["run", "--config", "gone.json"],
        ["run", "--nonsense"],
        ["run", "--data-home", "~nosuchuser"],
        ["sweep"],
        ["sweep", "--vary", "kappa"],
        ["sweep", "--vary", "objective.kapa=1"],
        ["sweep", "--vary", "objective.kappa=x"],
        ["sweep", "--vary", "training.steps=1e30"],
        ["sweep", "--vary", "training.steps="],
        ["sweep", "--vary", "seed=-1"],
        ["sweep", "--vary", "dataset.name=nonsense"],
        ["sweep", "--vary", "seed=0", "--workers", "-1"],
        ["sweep", "--vary", "seed=0", "--workers", "0"],
        ["sweep", "--vary", "seed=0", "--executor", "cloud"],
        ["curve", "--kappas", "-1"],
        ["curve", "--kappas", "x"],
        ["curve", "--dataset", "gone.npz"],
        ["reproduce", "--dataset", "nonsense"],
        ["reproduce", "--study", "nonsense"],
        ["reproduce", "--workers", "-1"],
        ["reproduce", "--workers", "x"],
        ["reproduce", "--profile", "huge"],
        ["report", "nowhere"],
        ["report"],
        ["show", "nowhere"],
        ["show"],
        ["data"],
        ["data", "check", "nonsense"],
        ["data", "fetch", "nonsense"],
        ["data", "check", "--data-home", "~nosuchuser"],
        ["frobnicate"],
        [],
    ],
    ids=" ".join,
)
def test_words_that_are_refused(refused, words):
    refused(
        *words,
        *(SHORT if words[:1] == ["run"] and not {"--config", "--device"} & {*words} else []),
    )


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '{"sed": 1}', '{"seed": "x"}', '{"dataset": 1}',
     '{"model": {"name": "nothing"}}', "[" * 100_000, "\ud800"],
)  # fmt: skip
def test_configurations_that_are_none(refused, tmp_path, text):
    (tmp_path / "c.json").write_text(text, "utf-8", errors="surrogatepass")
    err = refused("run", "--config", "c.json")
    assert "c.json" in err


@pytest.mark.parametrize("value", ["2", "two"])
def test_processes_that_nobody_started(refused, monkeypatch, value):
    monkeypatch.setenv("WORLD_SIZE", value)
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert "WORLD_SIZE" in refused("run", *SHORT)


def test_labels_that_are_none_of_the_classes(refused, tmp_path, write_idx):
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        base = tmp_path / "data/MNIST"
        write_idx(base / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(base / f"{part}-labels-idx1-ubyte", np.arange(count))
    words = ["--dataset", "mnist", "--constraint", "cla", "--kappa", "0.5"]
    assert "labels must lie between 0 and 9" in refused(
        "run", *words, *SHORT, "--data-home", tmp_path / "data"
    )


def test_a_partition_that_is_no_text(refused, tmp_path):
    (tmp_path / "data/celeba/img_align_celeba").mkdir(parents=True)
    (tmp_path / "data/celeba/list_eval_partition.txt").write_bytes(b"\xff\xfe\x00")
    words = ["--dataset", "celeba", "--data-home", tmp_path / "data"]
    assert "cannot be read as text" in refused("run", *words, *SHORT)


@pytest.fixture
def runs(tmp_path, toy_result):
    for seed in range(2):
        config = RunConfig(seed=seed)
        (tmp_path / "runs" / config.name).mkdir(parents=True)
        run = toy_result(config)
        run["final_kl"] = ("split", [1.0, 2.0])
        results.write_dataset(run, tmp_path / "runs" / config.name / "run.nc")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("name", "value"),
    [("schema", "other"), ("schema_version", "one"), ("schema_version", 99), ("config", "{"),
     ("config", "[" * 5000), ("config", '{"seed": []}'), ("config", 3)],
)  # fmt: skip
@pytest.mark.parametrize("command", ["show", "report"])
def test_one_damaged_run_among_others(refused, runs, name, value, command):
    path = sorted(runs.glob("*/run.nc"))[0]
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    refused(command, runs)


def test_folders_where_files_are_due(refused, runs):
    (runs / "index.html").mkdir()
    assert "could not be written" in refused("report", runs)
    (runs / "index.html").rmdir()
    (runs / "studies/target/study.json").mkdir(parents=True)
    assert "study.json" in refused("report", runs)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"format": "x"}', '{"format": 99}', "[" * 9999])
def test_studies_that_are_none(refused, runs, text):
    (runs / "studies/target").mkdir(parents=True)
    (runs / "studies/target/study.json").write_text(text)
    assert "study.json" in refused("report", runs)


def test_figures_outside_of_their_study(refused, runs):
    (runs / "secret.svg").write_text("<svg></svg>")
    study = {"format": 1, "name": "target", "title": "", "source": "", "look_for": "", "order": 0,
             "figures": [{"file": "../../secret.svg", "caption": "", "alt": ""}], "tables": [],
             "claims": [], "notes": [], "runs": [], "profile": ""}  # fmt: skip
    (runs / "studies/target").mkdir(parents=True)
    (runs / "studies/target/study.json").write_text(json.dumps(study))
    assert "no figure" in refused("report", runs)
