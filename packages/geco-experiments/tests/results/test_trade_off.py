"""The trade-off curve as data, from one run over a range and from several with one tolerance."""

import math

import numpy as np
import pytest
import xarray as xr

from geco_experiments import curve, load, open_run, results
from geco_experiments.evaluation.bounds import kept_limits, with_limits
from geco_experiments.results import schema
from geco_experiments.runtime.errors import RunError, SchemaError

KAPPAS = [0.1, 0.15, 0.3]
FINALS = ("final_rms_error", "final_kl", "final_kl_error", "active_latents")


def finished(config, kappas=None):
    """A run whose error is its tolerance and whose KL is 1 / kappa on the training set."""
    over = kappas is not None
    asked = np.array(kappas if over else [config.kappa])

    def values(of):
        pair = np.stack([of(asked), of(asked) + 1], axis=1)
        return pair if over else pair[0]

    data = {
        "final_rms_error": values(lambda k: k),
        "final_kl": values(lambda k: 1 / k),
        "final_kl_error": values(lambda k: 0 * k),
        "active_latents": values(lambda k: 0 * k + 4),
        "final_multiplier": 100 / asked if over else 100 / asked[0],
    }
    labels = {"kappa": kappas if over else config.kappa, "split": ["train", "test"]}
    dataset = schema.describe(data, {**labels, "seed": config.seed})
    dataset.attrs = {
        "schema": schema.SCHEMA, "schema_version": schema.VERSION, "config": config.to_json(),
        "name": config.name,
    }  # fmt: skip
    return dataset


@pytest.fixture
def ranged(tiny):
    config = tiny(**{"objective.kappa": "0.1..0.3", "objective.kappa_grid": KAPPAS})
    return finished(config, KAPPAS)


def test_one_run_over_a_range_and_one_for_each_tolerance_give_the_same_curve(tiny, ranged):
    single = [finished(tiny(**{"objective.kappa": kappa})) for kappa in KAPPAS]
    one, many = curve(ranged), curve(reversed(single))
    xr.testing.assert_allclose(one, many)
    assert one.sizes == {"seed": 1, "kappa": 3, "split": 2}
    train = one.sel(split="train", seed=0)
    np.testing.assert_allclose(train["rate"], 1 / train["kappa"])
    np.testing.assert_allclose(train["rms_error"], KAPPAS)
    # -dKL / dln kappa = 2 lambda kappa^2, for squared errors
    np.testing.assert_allclose(train["price"], 2 * (100 / train["kappa"]) * train["kappa"] ** 2)
    assert (train["active_latents"] == 4).all()
    assert {one[name].attrs["units"] for name in ("rate", "price", "slope")} == {"nat"}


def test_seeds_lie_beside_each_other(tiny):
    runs = [
        finished(tiny(**{"objective.kappa": kappa, "seed": seed}))
        for kappa, seed in ((0.1, 0), (0.2, 0), (0.1, 3))
    ]
    line = curve(runs)
    assert line["seed"].values.tolist() == [0, 3]
    known = np.isfinite(line["rate"].sel(split="train"))
    assert known.values.tolist() == [[True, True], [True, False]]


def test_it_is_read_from_files_and_folders(tmp_path, ranged):
    path = tmp_path / "one" / results.FILE
    path.parent.mkdir()
    results.write_dataset(ranged, path)
    for source in (path, path.parent, tmp_path, [path], str(tmp_path)):
        xr.testing.assert_identical(curve(source), curve(ranged))
    xr.testing.assert_identical(open_run(path), ranged)


def test_what_is_no_curve_is_refused(tmp_path, tiny, ranged):
    with pytest.raises(RunError, match="needs runs under GECO"):
        curve(tmp_path)
    with pytest.raises(RunError, match="needs runs under GECO"):
        curve(finished(tiny(**{"objective.name": "elbo"})))
    other = finished(tiny(**{"model.name": "linear-vae"}))
    with pytest.raises(RunError, match=r"of one dataset, model and constraint; got .*linear-vae"):
        curve([ranged, other])
    again = finished(tiny(**{"objective.kappa": 0.1}))
    with pytest.raises(RunError, match="the same tolerance and seed 0"):
        curve([ranged, again])


def test_the_price_is_one_of_squared_errors_alone(tiny):
    runs = [
        finished(tiny(**{"objective.constraint": "pncc", "objective.kappa": k})) for k in KAPPAS
    ]
    assert "price" not in curve(runs)


def test_limits_stand_beside_the_rate(tmp_path, tiny, ranged):
    """On the bound of a made-up dataset of one element: F*(T) = c, so KL >= (c - RE/2) / T."""
    limits = xr.Dataset(
        {
            "free_energy": ("temperature", [0.05, 0.05]),
            "distortion": ("temperature", [0.1, 0.1]),
            "rate": ("temperature", [0.0, 0.0]),
            "certificate": ("temperature", [0.0, 0.0]),
            "linear_kl": ("rms", [9.0, 1.0]),
        },
        coords={"temperature": [0.1, 0.2], "rms": [0.1, 0.3]},
        attrs={"features": 1},
    )
    line = with_limits(curve(ranged), limits).sel(seed=0)
    np.testing.assert_allclose(line["linear_rate"], [9.0, 7.0, 1.0])
    expected = (0.05 - 0.5 * np.square(KAPPAS)) / 0.1
    np.testing.assert_allclose(line["least_rate"], expected, rtol=1e-6)
    dataset = results.config_of(ranged).dataset
    assert kept_limits(dataset, tmp_path) is None
    for name in ("digits-100-9", "digits-100-12", "digits-50-20", "mnist-100-30"):
        results.write_dataset(limits.assign_attrs(which=name), tmp_path / f"{name}.nc")
    assert kept_limits(dataset, tmp_path).attrs["which"] == "digits-100-12"


def test_many_runs_take_a_range_to_its_tolerances(tmp_path, tiny, ranged):
    single = finished(tiny(**{"objective.kappa": 0.15}))
    elbo = finished(tiny(**{"objective.name": "elbo"}))
    for index, run in enumerate((ranged, single, elbo)):
        path = tmp_path / str(index) / results.FILE
        path.parent.mkdir()
        results.write_dataset(run, path)
    data = load(tmp_path).squeeze()
    train = data["final_kl"].sel(split="train")
    np.testing.assert_allclose(
        train.sel(objective="geco-range").dropna("kappa"), 1 / np.array(KAPPAS)
    )
    assert float(train.sel(objective="geco", kappa=0.15)) == pytest.approx(1 / 0.15)
    assert math.isnan(float(train.sel(objective="geco", kappa=0.3)))
    assert load(tmp_path, layout="runs").sizes["run"] == 5


def test_a_value_for_each_tolerance_is_not_one_value(ranged):
    np.testing.assert_allclose(results.finals(ranged, "kl", "train"), 1 / np.array(KAPPAS))
    with pytest.raises(SchemaError, match="for each of its tolerances"):
        results.final(ranged, "kl", "train")
    with pytest.raises(SchemaError, match="has no `final_nll`"):
        results.finals(ranged, "nll", "train")
