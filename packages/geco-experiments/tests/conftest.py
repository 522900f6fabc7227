"""Runs small enough to be made hundreds of times, and the means to compare them."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geco_experiments import config as configs
from geco_experiments.datasets.home import DataHome


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_data_home(monkeypatch, tmp_path_factory):
    """Tests find datasets only where they put them; the user's cache is left alone."""
    monkeypatch.delenv("GECO_DATA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def real_data_home():
    """The folder of real datasets, where the machine has one."""
    home = os.environ.get("GECO_DATA_HOME", "")
    if not home or not Path(home).is_dir():
        pytest.skip("GECO_DATA_HOME names no folder of datasets")
    return DataHome(Path(home).absolute(), Path(home).absolute())


@pytest.fixture
def tiny():
    """Makes configurations of a run of about a second: a small dense VAE on a few digits."""

    def make(**changes):
        base = {
            "dataset.train_limit": 100,
            "dataset.test_limit": 50,
            "model.name": "mlp-vae",
            "model.latents": 4,
            "model.hidden": 16,
            "objective.kappa": 0.2,
            "training.steps": 30,
            "training.batch_size": 32,
            "training.marginal_samples": 20,
            "execution.device": "cpu",
            "execution.checkpoint_seconds": 100.0,
            "execution.threads": 1,
        }
        return configs.replace(configs.RunConfig(), base | changes)

    return make


@pytest.fixture
def same_result():
    """Asserts that two runs have the same numbers bit for bit."""

    def check(one, other):
        # time spent and when and where are no results
        one, other = (run.drop_vars("seconds") for run in (one, other))
        for name in one.variables:
            np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)
        assert set(one.variables) == set(other.variables)
        kept = ("schema", "schema_version", "name", "data_sha256", "seed", "kappa")
        same = [(one.attrs[key], other.attrs[key]) for key in kept]
        assert all(str(a) == str(b) for a, b in same)

    return check


@pytest.fixture
def write_idx():
    """Writes an array of bytes in MNIST's format."""

    def write(path, array, opener=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        opener = opener or (gzip.open if path.suffix == ".gz" else open)
        with opener(path, "wb") as file:
            file.write(head + array.astype(np.uint8).tobytes())

    return write


@pytest.fixture
def fake_mnist(tmp_path, write_idx):
    """A data folder with 40 + 20 random images in MNIST's layout."""
    rng = np.random.default_rng(3)
    for part, count in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28))
        write_idx(tmp_path / f"data/MNIST/raw/{part}-images-idx3-ubyte.gz", images)
        labels = rng.integers(0, 10, count)
        write_idx(tmp_path / f"data/MNIST/raw/{part}-labels-idx1-ubyte.gz", labels)
    return tmp_path / "data"


@pytest.fixture
def home(tmp_path):
    """A data home with an empty named folder and an empty cache."""
    for name in ("data", "cache"):
        (tmp_path / name).mkdir(exist_ok=True)
    return DataHome(tmp_path / "data", tmp_path / "cache")


@pytest.fixture
def toy_result():
    """Makes a dataset of the schema for a configuration, without a run."""
    from geco_experiments.results import schema

    def make(config, *, steps=5, value=1.0):
        data = {
            "kl": np.full(steps, value, np.float32),
            "final_rms_error": [value, 2 * value],
            "elements": 64,
            "inputs": np.zeros((2, 3, 1, 8, 8), np.uint8),
        }
        dataset = schema.describe(
            data, {"step": np.arange(1, steps + 1), "split": ["train", "test"]}
        )
        dataset.attrs = {
            "schema": schema.SCHEMA,
            "schema_version": schema.VERSION,
            "config": config.to_json(),
            "name": config.name,
        }
        return dataset

    return make
