"""Runs on somebody's own data and of somebody's own model."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import geco_experiments as ge
from geco_experiments.runtime.errors import DataError, RunError
from geco_experiments.training import Stopped
from geco_models import ModelOutput


class Small(nn.Module):
    """A model that knows neither context nor generator."""

    def __init__(self, features=6, latents=2):
        super().__init__()
        self.encode = nn.Linear(features, 2 * latents)
        self.decode = nn.Linear(latents, features)

    def forward(self, x):
        mean, log_variance = self.encode(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
        kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1)
        return ModelOutput(self.decode(z), kl, z)


def fresh(seed=0):
    torch.manual_seed(seed)
    return Small()


@pytest.fixture
def signals():
    return np.random.default_rng(0).random((60, 6)).astype(np.float32)


@pytest.fixture
def config(tiny):
    return tiny(**{"dataset.train_limit": None, "dataset.test_limit": None})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        torch.from_numpy,
        lambda x: (x[:50], x[50:]),
        lambda x: {"x": x, "labels": np.arange(60) % 2},
        lambda x: TensorDataset(torch.from_numpy(x), torch.arange(60) % 3),
    ],
)
def test_data_of_every_kind(tmp_path, config, signals, wrap):
    run = ge.open_run(ge.run(config, tmp_path, data=wrap(signals)))
    assert run["images"].sum() == 60
    assert run.attrs["dataset"] == "data"
    assert np.atleast_1d(run.attrs["data_shape"]).tolist() == [6]


def test_what_is_no_data(tmp_path, config):
    for wrong in (3.5, object(), np.zeros(4), {"a": np.zeros((3, 2)), "b": np.zeros((3, 2))}):
        with pytest.raises(DataError):
            ge.run(config, tmp_path, data=wrong)
    assert not list(tmp_path.iterdir())


def test_a_model_of_ones_own_is_trained_and_resumed(tmp_path, config, signals, same_result):
    trained = fresh()
    before = trained.decode.weight.detach().clone()
    whole = ge.open_run(ge.run(config, tmp_path / "one", data=signals, model=trained))
    assert not torch.equal(before, trained.decode.weight)
    assert whole.attrs["model"] == "Small"
    calls = iter(range(100))
    with pytest.raises(Stopped):
        ge.run(
            config, tmp_path / "two", data=signals, model=fresh(), stop=lambda: next(calls) == 11
        )
    # a model with other weights goes on from those of the checkpoint
    again = fresh(7)
    same_result(whole, ge.open_run(ge.run(config, tmp_path / "two", data=signals, model=again)))
    torch.testing.assert_close(again.state_dict(), trained.state_dict(), rtol=0, atol=0)
    third = fresh(8)  # finished: nothing is trained, the weights are those of the run
    ge.run(config, tmp_path / "two", data=signals, model=third)
    torch.testing.assert_close(third.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_another_architecture_is_another_run(tmp_path, config, signals):
    one = ge.run(config, tmp_path, data=signals, model=Small())
    other = ge.run(config, tmp_path, data=signals, model=Small(latents=3))
    assert one != other
    with pytest.raises(RunError, match=r"must be a torch\.nn\.Module"):
        ge.run(config, tmp_path, data=signals, model=lambda x: x)


def test_what_was_not_observed_has_no_influence(tmp_path, config, signals):
    seen = np.random.default_rng(1).random(signals.shape) < 0.7
    spoilt = np.where(seen, signals, np.nan)
    path = ge.run(config, tmp_path, data={"x": spoilt})
    run = ge.open_run(path)
    assert np.isfinite(run["final_rms_error"]).all()
    violation = run["final_rms_error"] ** 2 - 0.2**2
    np.testing.assert_allclose(run["final_constraint"], violation, atol=1e-6)
    elbo = ge.RunConfig(objective=ge.ObjectiveConfig(name="elbo"))
    with pytest.raises(RunError, match="cannot leave out"):
        ge.run(elbo, tmp_path, data={"x": spoilt})


def test_a_stopped_run_never_goes_on_with_other_data(tmp_path, tiny, fake_mnist, write_idx):
    """The same name, other files: the very fault that a name alone cannot see."""
    config = tiny(**{"dataset.name": "mnist", "dataset.train_limit": None,
                     "dataset.test_limit": None})  # fmt: skip
    calls = iter(range(100))
    with pytest.raises(Stopped):
        ge.run(config, tmp_path / "out", data_home=fake_mnist, stop=lambda: next(calls) == 3)
    (first,) = (tmp_path / "out").iterdir()
    images = np.random.default_rng(9).integers(0, 256, (40, 28, 28))
    write_idx(fake_mnist / "MNIST/raw/train-images-idx3-ubyte.gz", images)
    other = ge.run(config, tmp_path / "out", data_home=fake_mnist)
    assert other.parent != first
    assert (first / "checkpoint.pt").exists()


def test_a_known_dataset_that_changes_under_a_run(tmp_path, tiny, monkeypatch):
    """Digits have a name and no fingerprint in it; the checkpoint still knows their content."""
    config = tiny()
    calls = iter(range(100))
    with pytest.raises(Stopped):
        ge.run(config, tmp_path, stop=lambda: next(calls) == 3)
    fingerprint = ge.Dataset.fingerprint
    monkeypatch.setattr(ge.Dataset, "fingerprint", lambda self: fingerprint(self)[::-1])
    with pytest.raises(RunError, match="on other data than those of digits now"):
        ge.run(config, tmp_path)
