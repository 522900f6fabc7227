import math

import numpy as np
import pytest
import xarray as xr

from geco_experiments import load, open_run, results
from geco_experiments.config import replace
from geco_experiments.results import schema
from geco_experiments.runtime.errors import RunError, SchemaError


@pytest.fixture
def folder(tmp_path, tiny, toy_result):
    """Writes toy results of several configurations; returns the folder."""

    def write(*configs, **options):
        for value, config in enumerate(configs):
            path = tmp_path / "out" / config.name / results.FILE
            path.parent.mkdir(parents=True)
            results.write_dataset(toy_result(config, value=float(value), **options), path)
        return tmp_path / "out"

    return write


def test_round_trip(tmp_path, tiny, toy_result):
    written = toy_result(tiny())
    results.write_dataset(written, tmp_path / "run.nc")
    read = open_run(tmp_path / "run.nc")
    xr.testing.assert_identical(read, written)
    assert read["kl"].attrs == {"units": "nat", "long_name": schema.VARIABLES["kl"].long_name}
    assert results.config_of(read) == tiny()
    assert open_run(tmp_path)["elements"] == 64


def test_runs_lie_along_labelled_dimensions(folder, tiny):
    configs = [tiny(**{"objective.kappa": k, "seed": s}) for k in (0.1, 0.2) for s in (0, 1)]
    data = load(folder(*configs))
    assert data.sizes["kappa"] == 2
    assert data.sizes["seed"] == 2
    assert data["kl"].dims[:5] == results.AXES
    for value, config in enumerate(configs):
        labels = {"kappa": config.kappa, "seed": config.seed, "model": "mlp-vae"}
        one = data.sel(labels, method=None).squeeze()
        assert (one["kl"] == value).all()
        assert one["final_rms_error"].sel(split="test") == 2 * value
        assert str(one["name"].values) == config.name


def test_what_was_not_run_is_nan(folder, tiny):
    runs = folder(
        tiny(**{"objective.kappa": 0.1, "seed": 0}),
        tiny(**{"objective.kappa": 0.2, "seed": 1}),
        tiny(**{"objective.name": "elbo"}),
    )
    data = load(runs).squeeze()
    absent = data.sel(kappa=0.1, seed=1, objective="geco")
    assert absent["kl"].isnull().all()
    assert str(absent["name"].values) == ""
    assert data.sel(kappa=0.1, seed=0, objective="geco")["kl"][0] == 0
    kappas = data["kappa"].values
    assert np.isnan(kappas[-1])
    elbo = data.sel(objective="elbo", seed=0)["final_rms_error"].isel(kappa=-1)
    assert elbo.sel(split="train") == 2


def test_histories_of_different_lengths(tmp_path, tiny, toy_result):
    paths = []
    for seed, steps in ((0, 3), (1, 6)):
        path = tmp_path / str(seed) / "run.nc"
        path.parent.mkdir()
        results.write_dataset(toy_result(tiny(seed=seed), steps=steps), path)
        paths.append(path)
    kl = load(paths)["kl"].squeeze()
    assert kl.sizes["step"] == 6
    assert kl.sel(seed=0).notnull().sum() == 3


def test_further_differences_become_dimensions(folder, tiny):
    runs = folder(
        tiny(),
        tiny(**{"training.learning_rate": 0.01}),
        tiny(**{"training.gradient_clip": 1.0}),
    )
    data = load(runs)
    assert data.sizes["training.learning_rate"] == 2
    assert data.sizes["training.gradient_clip"] == 2
    chosen = data.sel({"training.learning_rate": 0.01}).squeeze()
    assert float(chosen["elements"].max()) == 64
    assert "model.latents" not in data.dims


def test_parameters_of_other_objectives_are_no_dimensions(folder, tiny):
    # kappa says it all: the label of the objective already tells geco from elbo
    data = load(folder(tiny(), tiny(**{"objective.name": "elbo", "objective.beta": 2.0})))
    assert set(data["kl"].dims) == {*results.AXES, "step"}
    assert sorted(data["objective"].values) == ["elbo-beta2", "geco"]


def test_flat_layout(folder, tiny):
    runs = folder(tiny(), tiny(**{"model.latents": 8}), tiny(**{"dataset.name": "mnist"}))
    data = load(runs, layout="runs")
    assert data["kl"].dims == ("run", "step")
    assert set(data["dataset"].values) == {"digits", "mnist"}
    chosen = data.sel(run=data["model.latents"] == 8)
    assert chosen.sizes["run"] == 1


def test_pictures_on_demand(folder, tiny):
    runs = folder(tiny(seed=0), tiny(seed=1))
    assert "inputs" not in load(runs)
    assert load(runs, pictures=True, layout="runs")["inputs"].dims[0] == "run"


def test_a_folder_with_the_runs_below_it(folder, tiny):
    runs = folder(tiny())
    runs.rename(runs.parent / "runs")
    assert load(runs.parent).sizes["seed"] == 1


def test_a_newer_schema_says_so(tmp_path, tiny, toy_result):
    newer = toy_result(tiny())
    newer.attrs["schema_version"] = schema.VERSION + 1
    results.write_dataset(newer, tmp_path / "run.nc")
    with pytest.raises(SchemaError, match=r"schema version 2, this release reads up to 1: update"):
        open_run(tmp_path)
    with pytest.raises(SchemaError, match="update geco-experiments"):
        load(tmp_path)


def test_foreign_damaged_and_missing(tmp_path, tiny, toy_result):
    with pytest.raises(RunError, match="there is no result"):
        open_run(tmp_path / "run.nc")
    with pytest.raises(RunError, match="no finished run in"):
        load(tmp_path)
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with pytest.raises(SchemaError, match="is no result of a run"):
        open_run(tmp_path)
    results.write_dataset(toy_result(tiny()), tmp_path / "run.nc")
    content = (tmp_path / "run.nc").read_bytes()
    for kept in (0, 100, len(content) // 2):
        (tmp_path / "run.nc").write_bytes(content[:kept])
        with pytest.raises(RunError, match="is damaged or no netCDF file"):
            open_run(tmp_path)


def test_the_same_run_twice(tmp_path, tiny, toy_result):
    paths = [tmp_path / f"{i}.nc" for i in range(2)]
    for path in paths:
        results.write_dataset(toy_result(tiny()), path)
    with pytest.raises(RunError, match="the same configuration"):
        load(paths)


def test_bad_layout():
    with pytest.raises(ValueError, match=r"`layout` must be grid or runs"):
        load("x", layout="cube")


def test_schema_refuses_what_it_does_not_know():
    with pytest.raises(SchemaError, match=r"`speed` with 0 dimensions"):
        schema.describe({"speed": 1.0}, {})
    with pytest.raises(SchemaError, match=r"`kl` with 0 dimensions"):
        schema.describe({"kl": 1.0}, {})


def test_other_values_of_none_and_switches(folder, tiny):
    runs = folder(tiny(), replace(tiny(), {"dataset.train_limit": None}))
    labels = load(runs)["dataset.train_limit"].values
    assert labels[0] == 100
    assert math.isnan(labels[1])


def test_a_random_search_is_no_grid(tmp_path, tiny, toy_result):
    """Sixty runs that differ in everything would take up sixty times sixty places."""
    for index in range(60):
        config = tiny(**{"objective.kappa": 0.1 + index / 1000, "seed": index})
        (tmp_path / config.name).mkdir()
        results.write_dataset(toy_result(config), tmp_path / config.name / "run.nc")
    with pytest.raises(RunError, match=r"they are no grid, load them with layout='runs'"):
        load(tmp_path)
    assert load(tmp_path, layout="runs").sizes["run"] == 60
