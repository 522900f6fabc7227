import json

import numpy as np
import pytest
import torch

from geco_experiments import datasets, load, open_run, run
from geco_experiments.config import replace
from geco_experiments.datasets.home import DataHome
from geco_experiments.results.schema import VARIABLES
from geco_experiments.runtime.errors import MissingDataError, RunError
from geco_experiments.runtime.progress import NoMeter
from geco_experiments.training import Stopped, choose_device
from geco_experiments.training.loop import learning_rate


class Recorder(NoMeter):
    interval = 0.0

    def __init__(self):
        self.reports = []

    def report(self, done, values):
        self.reports.append((done, values))


def test_a_run_becomes_a_labelled_dataset(tmp_path, tiny):
    config = tiny()
    path = run(config, tmp_path)
    assert path == tmp_path / config.name / "run.nc"
    data = open_run(path)
    assert set(data.variables) <= set(VARIABLES)
    for name, variable in data.variables.items():
        assert variable.dims == VARIABLES[name].dims, name
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
    assert data["step"].values.tolist() == list(range(1, 31))
    assert data["images"].values.tolist() == [100, 50]
    assert json.loads(data.attrs["config"]) == config.to_dict()
    for key in ("versions", "hardware", "created", "data_sha256", "data_scale", "data_view"):
        assert str(data.attrs[key]), key
    assert data.attrs["constraint_reduction"]
    finite = data.drop_vars(["inputs", "reconstructions", "samples"])
    assert all(np.isfinite(finite[name].values).all() for name in finite.data_vars)
    assert sorted(p.name for p in path.parent.iterdir()) == [
        ".lock", "config.json", "model.pt", "run.nc",
    ]  # fmt: skip


def test_history_and_final_values_agree_with_each_other(tmp_path, tiny):
    config = tiny(**{"training.steps": 40})
    data = open_run(run(config, tmp_path))
    kappa = config.kappa
    # the constraint is the squared error less the allowed one
    np.testing.assert_allclose(data["constraint"], data["rms_error"] ** 2 - kappa**2, atol=1e-6)
    np.testing.assert_allclose(
        data["relative_multiplier"], data["multiplier"] * kappa**2, rtol=1e-5
    )
    np.testing.assert_allclose(data["beta"], 64 / (2 * data["multiplier"]), rtol=1e-5)
    np.testing.assert_allclose(
        data["final_constraint"], data["final_mse"] - kappa**2, rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(data["final_rms_error"] ** 2, data["final_mse"], rtol=1e-12)
    nll = 32 * np.log(2 * np.pi) + 32 * data["final_mse"]
    np.testing.assert_allclose(data["final_nll"], nll, rtol=1e-12)
    fitted = data["final_nll_fitted"].sel(split="train")
    variance = float(data["final_mse"].sel(split="train"))
    np.testing.assert_allclose(fitted, 32 * (np.log(2 * np.pi * variance) + 1), rtol=1e-12)


def test_the_saved_model_is_the_one_that_was_measured(tmp_path, tiny, home):
    import geco_models
    from geco_experiments import datasets

    config = tiny(**{"training.steps": 60})
    path = run(config, tmp_path)
    model = geco_models.load(path.parent / "model.pt")
    data = datasets.load(config.dataset, home)
    x = data.batch("train", torch.arange(100)).images
    with torch.no_grad():
        errors = [(model(x).reconstruction - x).square().mean().item() for _ in range(50)]
    expected = float(open_run(path)["final_mse"].sel(split="train"))
    assert np.mean(errors) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("steps", [1, 7, 29])
def test_stopping_and_going_on_changes_nothing(tmp_path, tiny, same_result, steps, stop_after):
    config = tiny()
    whole = open_run(run(config, tmp_path / "whole"))
    with pytest.raises(Stopped, match=f"stopped after step {steps} of 30"):
        run(config, tmp_path / "parts", stop=stop_after(steps))
    meter = Recorder()
    parts = open_run(run(config, tmp_path / "parts", progress=meter))
    assert meter.reports[0][0] == steps + 1
    same_result(whole, parts)
    models = [torch.load(tmp_path / d / config.name / "model.pt") for d in ("whole", "parts")]
    for name, tensor in models[0]["state"].items():
        assert torch.equal(tensor, models[1]["state"][name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"model.name": "conv-draw", "model.latents": 2, "model.width": 8, "model.draw_steps": 2},
        {"model.name": "conv-vae", "model.width": 8},
        {"model.name": "linear-vae"},
        {"objective.name": "elbo", "objective.beta": 2.0},
        {"objective.name": "annealed-elbo", "objective.anneal_steps": 10},
        {"objective.name": "sigma-vae"},
        {"objective.update": "paper"},
        {"objective.constraint": "pncc", "objective.kappa": 0.5},
        {"objective.constraint": "fre"},
        {"training.precision": "bfloat16"},
        {"execution.channels_last": True, "model.name": "conv-vae", "model.width": 8},
        {"training.gradient_clip": 0.1},
        {"training.batch_size": 130},
        {"model.name": "nvp-vae", "model.width": 8, "model.couplings": 2},
        {"model.name": "nvp-vae", "model.flow": "posterior", "model.couplings": 2},
        {"model.name": "linear-vae", "objective.constraint": "pncc", "objective.kappa": 0.5},
        {
            "objective.constraint": "cla",
            "objective.kappa": 0.5,
            "objective.classifier_steps": 20,
        },
        {
            "objective.constraint": "fre",
            "objective.features": "classifier",
            "objective.classifier_steps": 20,
        },
    ],
    ids=lambda changes: "-".join(str(v) for v in changes.values()),
)
def test_every_kind_of_run_resumes_exactly(tmp_path, tiny, same_result, changes, stop_after):
    config = tiny(**{"training.steps": 8, **changes})
    whole = open_run(run(config, tmp_path / "whole"))
    with pytest.raises(Stopped):
        run(config, tmp_path / "parts", stop=stop_after(3))
    same_result(whole, open_run(run(config, tmp_path / "parts")))
    load(tmp_path / "whole")


@pytest.mark.parametrize("name", ["mnist-rotate", "color-mnist"])
def test_conditional_data(tmp_path, tiny, same_result, fake_mnist, name, stop_after):
    config = tiny(
        **{"dataset.name": name, "model.name": "conv-vae", "model.width": 8, "training.steps": 6}
    )
    whole = open_run(run(config, tmp_path / "whole", data_home=fake_mnist))
    with pytest.raises(Stopped):
        run(config, tmp_path / "parts", data_home=fake_mnist, stop=stop_after(3))
    same_result(whole, open_run(run(config, tmp_path / "parts", data_home=fake_mnist)))
    assert "fixed per image" in whole.attrs["data_view"] or "angle" in whole.attrs["data_view"]


def test_compiled(tmp_path, tiny, same_result, monkeypatch, stop_after):
    # the cheap backend: what matters here is the noise of a model that takes no generator
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend="eager"))
    config = tiny(**{"execution.compile": True, "training.steps": 8})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    whole = open_run(run(config, tmp_path / "whole"))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(Stopped):
        run(config, tmp_path / "parts", stop=stop_after(3))
    torch.manual_seed(6)
    same_result(whole, open_run(run(config, tmp_path / "parts")))


def test_nothing_global_is_touched_or_needed(tmp_path, tiny, same_result):
    config = tiny()
    one = open_run(run(config, tmp_path / "one"))
    torch.manual_seed(123)
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    other = open_run(run(config, tmp_path / "other"))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    same_result(one, other)


def test_seeds_differ(tmp_path, tiny):
    one, other = (open_run(run(tiny(seed=seed), tmp_path)) for seed in (0, 1))
    assert not np.array_equal(one["loss"], other["loss"])


def test_a_finished_run_is_not_made_again(tmp_path, tiny, monkeypatch):
    config = tiny()
    path = run(config, tmp_path)
    before = path.stat().st_mtime_ns
    monkeypatch.setattr("geco_experiments.training.loop.Loop.advance", None)
    assert run(replace(config, {"execution.threads": None}), tmp_path) == path
    assert path.stat().st_mtime_ns == before


def test_progress_is_told(tmp_path, tiny):
    meter = Recorder()
    run(tiny(), tmp_path, progress=meter)
    done, values = meter.reports[-1]
    assert done == 30
    assert set(values) == {"RE/kappa", "KL", "beta", "lambda"}
    assert values["beta"] == pytest.approx(64 / (2 * values["lambda"]), rel=1e-5)


def test_learning_rate_schedule(tiny):
    config = tiny(**{"training.steps": 1000, "training.learning_rate": 0.5})
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[:500] == [0.5] * 500
    assert all(np.diff(rates[500:]) < 0)
    assert rates[-1] == pytest.approx(0.005)
    assert rates[750] == pytest.approx(0.5 * (0.01 + 0.99 / 2), rel=0.01)
    constant = tiny(**{"training.constant_share": 1.0})
    assert learning_rate(constant, 29) == 1e-3
    single = tiny(**{"training.steps": 1, "training.constant_share": 0.0})
    assert learning_rate(single, 0) == 1e-3


# bad input, each one sentence


def test_missing_data_leaves_nothing_but_the_configuration(tmp_path, tiny):
    with pytest.raises(MissingDataError, match="geco data fetch mnist"):
        run(tiny(**{"dataset.name": "mnist"}), tmp_path, data_home=tmp_path)
    assert not list(tmp_path.glob("*/run.nc"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["run.nc", "checkpoint.pt", "config.json"])
@pytest.mark.parametrize("content", [b"", b"my thesis", b"\x89HDF\r\n\x1a\n and then nothing"])
def test_damaged_files_are_said_and_kept(tmp_path, tiny, name, content, stop_after):
    config = tiny()
    with pytest.raises(Stopped):
        run(config, tmp_path, stop=stop_after(3))
    folder = tmp_path / config.name
    (folder / name).write_bytes(content)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(RunError, match=rf"{name} .*move "):
        run(config, tmp_path)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_files_of_another_run(tmp_path, tiny, stop_after):
    one, other = tiny(seed=0), tiny(seed=1)
    path = run(one, tmp_path)
    with pytest.raises(Stopped):
        run(other, tmp_path, stop=stop_after(3))
    folder = tmp_path / other.name
    (folder / "run.nc").write_bytes(path.read_bytes())
    with pytest.raises(RunError, match=r"run.nc belongs to a run with another configuration"):
        run(other, tmp_path)
    (folder / "run.nc").unlink()
    (folder / "config.json").write_bytes((path.parent / "config.json").read_bytes())
    with pytest.raises(RunError, match="holds a run with another configuration"):
        run(other, tmp_path)


def test_a_folder_of_something_else(tmp_path, tiny):
    folder = tmp_path / tiny().name
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match=r"holds letter.txt but no config.json"):
        run(tiny(), tmp_path)
    assert (folder / "letter.txt").read_text() == "dear"
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "letter.txt"]


def test_out_is_a_file(tmp_path, tiny):
    (tmp_path / "out").touch()
    with pytest.raises(
        RunError, match=r"could not be written to .*: a part of the path is a file"
    ):
        run(tiny(), tmp_path / "out")


def test_two_at_once(tmp_path, tiny):
    config = tiny()

    def second():
        with pytest.raises(RunError, match="another process is working on"):
            run(config, tmp_path)
        return True

    with pytest.raises(Stopped):
        run(config, tmp_path, stop=second)


def test_divergence_is_said_and_the_last_good_checkpoint_kept(tmp_path, tiny, monkeypatch):
    from geco_experiments.training import checkpoints, loop

    config = tiny(**{"execution.checkpoint_seconds": 0.0})
    advance = loop.Loop.advance

    def poisoned(self):
        if self.step == 10:
            next(self.model.parameters()).data.fill_(float("nan"))
        advance(self)

    monkeypatch.setattr(loop.Loop, "advance", poisoned)
    with pytest.raises(RunError, match=r"training has diverged; lower `training.learning_rate`"):
        run(config, tmp_path)
    data = datasets.load(config.dataset, DataHome.resolve()).fingerprint()
    kept = checkpoints.read(tmp_path / config.name / "checkpoint.pt", config, data)
    assert kept.step == 10
    assert all(torch.isfinite(tensor).all() for tensor in kept.model.values())


@pytest.mark.parametrize("name", ["cuda:99", "toaster", "meta"])
def test_devices_that_are_not_there(name):
    with pytest.raises(RunError, match=r"execution.device"):
        choose_device(name)


def test_models_that_cannot_be_conditional(tmp_path, tiny, fake_mnist):
    config = tiny(**{"dataset.name": "mnist-rotate"})
    with pytest.raises(RunError, match="mlp-vae cannot be conditional but mnist-rotate is"):
        run(config, tmp_path, data_home=fake_mnist)
