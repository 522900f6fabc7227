"""A run over a range of tolerances: one model, one multiplier at each knot, all measured."""

import numpy as np
import pytest
import torch
from torch import nn

import geco_experiments as ge
import geco_models
from geco_core import ReconstructionError
from geco_experiments import registry
from geco_experiments.runtime.errors import RunError
from geco_experiments.training import Stopped

RANGE = {"objective.kappa": "0.1..0.3", "objective.kappa_grid": [0.1, 0.17, 0.3]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from geco_experiments import config as configs

    base = {
        "dataset.train_limit": 100, "dataset.test_limit": 50, "model.name": "mlp-vae",
        "model.latents": 4, "model.hidden": 16, "training.steps": 30, "training.batch_size": 32,
        "training.marginal_samples": 20, "execution.device": "cpu", "execution.threads": 1,
    }  # fmt: skip
    config = configs.replace(configs.RunConfig(), base | RANGE)
    return ge.run(config, tmp_path_factory.mktemp("range"))


def test_final_values_lie_along_the_tolerances(finished):
    run = ge.open_run(finished)
    assert run["kappa"].values.tolist() == [0.1, 0.17, 0.3]
    for name in ("final_rms_error", "final_kl", "final_constraint", "marginal_kl"):
        assert run[name].dims == ("kappa", "split"), name
        assert np.isfinite(run[name]).all(), name
    assert run["final_multiplier"].dims == run["final_beta"].dims == ("kappa",)
    assert run.attrs["kappa"] == "0.1..0.3"
    assert run.attrs["objective"] == "geco-range"
    # the constraint is that of each tolerance
    violation = run["final_rms_error"] ** 2 - run["kappa"] ** 2
    np.testing.assert_allclose(run["final_constraint"], violation, atol=1e-6)
    # beta of the equivalent beta-VAE, D1: d / 2 lambda
    beta = 64 / (2 * run["final_multiplier"])
    np.testing.assert_allclose(run["final_beta"], beta, rtol=1e-5)


def test_what_belongs_to_one_tolerance_is_unknown_over_a_range(finished):
    run = ge.open_run(finished)
    for name in ("constraint", "moving_average", "multiplier", "relative_multiplier", "beta"):
        assert run[name].isnull().all(), name
    for name in ("loss", "kl", "rms_error", "feasible", "saturated", "skipped"):
        assert np.isfinite(run[name]).all(), name
    assert run["knot_multiplier"].dims == ("step", "knot")
    assert np.isfinite(run["knot_multiplier"]).all()
    assert run["knot"].values[[0, -1]].tolist() == pytest.approx([0.1, 0.3])
    ends = run["knot_multiplier"].isel(step=-1, knot=[0, -1]).values
    np.testing.assert_allclose(run["final_multiplier"].isel(kappa=[0, -1]), ends, rtol=1e-4)


def test_final_values_are_those_of_the_saved_model(finished):
    """The model, asked for a tolerance, on the images: the KL has no noise."""
    run = ge.open_run(finished)
    model = geco_models.load(finished.with_name("model.pt"))
    assert model.tolerance == (0.1, 0.3)
    from geco_experiments import datasets, results
    from geco_experiments.datasets.home import DataHome

    data = datasets.load(results.config_of(run).dataset, DataHome.resolve())
    images = data.batch("train", torch.arange(100)).images
    for kappa in run["kappa"].values:
        with torch.no_grad():
            out = model(images, kappa=float(kappa))
        kl = float(run["final_kl"].sel(kappa=kappa, split="train"))
        assert float(out.kl.double().mean()) == pytest.approx(kl, rel=1e-5)
        active = int(run["active_latents"].sel(kappa=kappa, split="train"))
        assert int(out.active_units().sum()) == active


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.name": "conv-draw", "model.latents": 2, "model.width": 8, "model.draw_steps": 2},
        {"model.name": "linear-vae", "objective.constraint": "pncc"},
    ],
    ids=["mlp-vae", "conv-draw", "linear-vae-pncc"],
)
def test_it_resumes_exactly(tmp_path, tiny, same_result, changes, stop_after):
    config = tiny(**{"training.steps": 8, **RANGE, **changes})
    whole = ge.open_run(ge.run(config, tmp_path / "whole"))
    with pytest.raises(Stopped):
        ge.run(config, tmp_path / "parts", stop=stop_after(3))
    parts = ge.open_run(ge.run(config, tmp_path / "parts"))
    np.testing.assert_array_equal(whole["knot_multiplier"], parts["knot_multiplier"])
    one, other = (run.drop_vars("seconds") for run in (whole, parts))
    assert one.equals(other)


def test_each_example_has_a_tolerance_of_its_own(tmp_path, tiny, monkeypatch):
    seen = []
    measure = ReconstructionError.evaluate
    forward = geco_models.MLPVAE.forward

    def watched(self, x, context=None, generator=None, *, kappa=None):
        seen.append(kappa)
        return forward(self, x, context, generator, kappa=kappa)

    monkeypatch.setattr(geco_models.MLPVAE, "forward", watched)
    ge.run(tiny(**{"training.steps": 3, **RANGE}), tmp_path)
    assert measure is ReconstructionError.evaluate
    drawn = [kappa for kappa in seen if isinstance(kappa, torch.Tensor) and kappa.ndim == 1]
    assert [len(kappa) for kappa in drawn[:3]] == [32, 32, 32]
    for kappa in drawn[:3]:
        # stratified: one in each of 32 equal parts of the range's logarithm
        place = (kappa.double() / 0.1).log() / np.log(3.0)
        assert sorted((place * 32).long().clamp(max=31).tolist()) == list(range(32))
    assert not torch.equal(drawn[0], drawn[1])


class Plain(nn.Module):
    """A model of somebody's own that knows nothing of tolerances."""

    def __init__(self):
        super().__init__()
        self.inner = geco_models.MLPVAE((1, 8, 8), 2, hidden=(8,))

    def forward(self, x, generator=None):
        return self.inner(x, generator=generator)


class Modulated(nn.Module):
    """One that takes them."""

    def __init__(self):
        super().__init__()
        self.inner = geco_models.MLPVAE((1, 8, 8), 2, hidden=(8,), tolerance=(0.1, 0.3))

    def forward(self, x, kappa, generator=None):
        return self.inner(x, generator=generator, kappa=kappa)


def test_a_model_of_ones_own_must_take_the_tolerances(tmp_path, tiny):
    config = tiny(**{"training.steps": 3, **RANGE})
    with pytest.raises(RunError, match=r"must take the tolerances: .*Plain does not"):
        ge.run(config, tmp_path, model=Plain())
    run = ge.open_run(ge.run(config, tmp_path, model=Modulated()))
    assert run["final_kl"].dims == ("kappa", "split")


def test_a_registered_model_that_takes_none_is_refused(tmp_path, tiny, monkeypatch):
    def maker(config, shape, context_shape):
        return geco_models.MLPVAE(shape, config.latents)

    load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name: maker if kind == "models" else load(kind, name)
    )
    with pytest.raises(RunError, match=r"mlp-vae takes no tolerance as an input.*0\.1\.\.0\.3"):
        ge.run(tiny(**RANGE), tmp_path)
