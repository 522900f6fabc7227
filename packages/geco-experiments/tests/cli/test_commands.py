import json

import pytest

from geco_experiments import open_run
from geco_experiments.cli import entry_point as cli
from geco_experiments.config import RunConfig, replace

TINY = [
    "--dataset.train-limit",
    "60",
    "--dataset.test-limit",
    "30",
    "--model",
    "mlp-vae",
    "--latents",
    "3",
    "--model.hidden",
    "8",
    "--steps",
    "6",
    "--batch-size",
    "16",
    "--training.marginal-samples",
    "10",
    "--device",
    "cpu",
    "--execution.threads",
    "1",
]


@pytest.fixture
def geco(capsys):
    """Runs the command; returns exit code, stdout and stderr."""

    def call(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:  # how option parsers leave
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_run_and_show(geco, tmp_path):
    code, _, err = geco("run", *TINY, "--kappa", "0.3", "--seed", "4", "--out", tmp_path)
    assert code == 0
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    config = RunConfig.from_json(open_run(folder).attrs["config"])
    assert (config.objective.kappa, config.seed, config.model.name) == (0.3, 4, "mlp-vae")
    assert folder.name == config.name
    assert "held out RMS error" in err
    assert "RE/kappa" in err
    code, out, _ = geco("show", tmp_path)
    assert code == 0
    assert config.name in out
    assert geco("show", tmp_path / "nothing")[0] == 2


def test_nested_and_short_options_are_the_same(geco, tmp_path):
    for words in (["--dataset.name", "digits", "--objective.beta", "2"], ["--beta", "2"]):
        code, _, err = geco(
            "run", *TINY, "--objective", "elbo", *words, "--out", tmp_path, "--quiet"
        )
        assert code == 0, err
        assert "step/s" not in err
    assert len(list(tmp_path.iterdir())) == 1


def test_help_names_every_field(geco):
    from geco_experiments.config import field_paths

    code, out, err = geco("run", "--help")
    assert code == 0
    text = (out + err).replace("_", "-")
    for path in field_paths():
        assert f"--{path.replace('_', '-')}" in text, path
    code, out, err = geco("--help")
    assert code == 0
    assert all(name in out + err for name in cli.COMMANDS)
    assert "geco 0." in "".join(geco("--version")[1:])


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rnu"], "did you mean run?"),
        (["frobnicate"], "there are run, sweep"),
        ([], "usage: geco COMMAND"),
        (["run", "--objective.kapa", "0.1"], "--objective.kappa"),
        (["run", "--dataset", "mnits"], "mnist"),
        (["run", "--kappa", "-1"], "must be a finite number above 0; got -1"),
        (["run", "--steps", "many"], "--training.steps"),
        (["data", "fetch", "nothing"], "invalid choice"),
        (["sweep", "--vary", "kappa"], "`--vary` must be FIELD=VALUE"),
        (["sweep", "--vary", "objective.kapa=1"], "did you mean"),
        (["sweep", "--vary", "training.steps=1.5"], "must be a whole number"),
    ],
)
def test_bad_options_end_with_2_and_a_hint(geco, words, hint):
    code, out, err = geco(*words)
    assert code == 2
    assert hint in " ".join((out + err).split())
    assert "Traceback" not in err


def test_missing_data_is_one_message(geco, tmp_path):
    words = ["--dataset", "mnist", "--data-home", tmp_path, "--out", tmp_path / "out", "--quiet"]
    code, _, err = geco("run", *TINY, *words)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "geco data fetch mnist" in err
    assert str(tmp_path) in err


@pytest.mark.parametrize("executor", ["serial", "local"])
def test_a_sweep_finds_missing_data_before_its_first_run(geco, tmp_path, executor):
    out = tmp_path / "out"
    words = ["--vary", "dataset.name=digits,mnist,mnist-rotate", "seed=0,1", "--quiet"]
    words += ["--data-home", tmp_path, "--out", out, "--executor", executor]
    code, _, err = geco("sweep", *TINY, *words)
    assert code == 2
    # one line for each dataset, not one for each run
    assert [line.split(":")[0] for line in err.splitlines()] == ["mnist", "mnist-rotate"]
    assert err.count("geco data fetch mnist") == 2
    assert str(tmp_path) in err
    assert not out.exists()


def test_a_finished_sweep_needs_no_data(geco, tmp_path, monkeypatch):
    words = ["--vary", "seed=0", "--out", tmp_path, "--executor", "serial", "--quiet"]
    assert geco("sweep", *TINY, *words)[0] == 0
    asked = []
    monkeypatch.setattr(
        "geco_experiments.cli.commands.require", lambda names, home: asked.append(list(names))
    )
    monkeypatch.setattr("geco_experiments.datasets.load", None)
    assert geco("sweep", *TINY, *words)[0] == 0
    assert asked == [[]]


def test_data_check_names_folders_and_commands(geco, tmp_path):
    code, out, _ = geco("data", "check", "mnist", "--data-home", tmp_path)
    assert code == 2
    assert str(tmp_path) in out
    assert "geco data fetch mnist" in out
    assert "train-images-idx3-ubyte" in out
    assert geco("data", "check", "digits")[0] == 0


def test_a_folder_that_cannot_be_used(geco, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = geco("run", *TINY, "--out", tmp_path / "file", "--quiet")
    assert code == 2
    assert len(err.strip().splitlines()) == 1


def test_sweep(geco, tmp_path):
    axes = ["--vary", "objective.kappa=0.3,0.4", "seed=0"]
    code, _, err = geco("sweep", *axes, *TINY, "--executor", "serial", "--out", tmp_path)
    assert code == 0
    assert "2 of 2 runs finished" in err
    assert len(list(tmp_path.glob("*/run.nc"))) == 2
    bad = ["--vary", "training.learning_rate=0.001,1e30"]
    code, _, err = geco(
        "sweep",
        *bad,
        *TINY,
        "--kappa",
        "0.3",
        "--executor",
        "serial",
        "--quiet",
        "--out",
        tmp_path,
    )
    assert code == 1
    assert "1 of 2 runs finished" in err
    assert "failed: digits" in err
    assert "diverged" in err
    assert ".log" in err


def test_data_check(geco, fake_mnist, tmp_path):
    code, out, _ = geco("data", "check", "--data-home", fake_mnist)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "ready" in lines["digits"]
    assert "MNIST/raw" in lines["mnist"]
    assert "MNIST/raw" in lines["mnist-rotate"]
    assert "geco data fetch fashion-mnist" in lines["fashion-mnist"]
    assert "img_align_celeba" in lines["celeba"]
    assert geco("data", "check", "mnist", "--data-home", fake_mnist)[0] == 0
    assert geco("data", "check", "cifar-10", "--data-home", fake_mnist)[0] == 2
    (fake_mnist / "cifar-10-binary.tar.gz").touch()
    assert geco("data", "check", "cifar-10", "--data-home", fake_mnist)[0] == 0


def test_fetching_what_needs_no_fetching(geco, tmp_path):
    assert geco("data", "fetch", "digits", "--data-home", tmp_path)[0] == 0
    code, _, err = geco("data", "fetch", "celeba", "--data-home", tmp_path)
    assert code == 2
    assert "cannot be downloaded automatically" in err


def test_every_command_can_be_imported():
    import importlib

    for name, command in cli.COMMANDS.items():
        module, _, function = command.target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), name


def test_values_of_vary():
    from geco_experiments.cli.commands import _axis

    assert _axis("objective.kappa=0.1,1") == ("objective.kappa", [0.1, 1])
    assert _axis("model.name=conv-vae,conv-draw")[1] == ["conv-vae", "conv-draw"]
    assert _axis("dataset.train_limit=None,100")[1] == [None, 100]
    assert _axis("model.shared=True,False")[1] == [True, False]
    assert json.loads(replace(RunConfig(), {"execution.device": "1"}).to_json())
