import math

import numpy as np
import pytest
import torch
import xarray as xr

from geco_experiments import open_run, run
from geco_experiments.datasets.home import DataHome
from geco_experiments.evaluation.constraints import MEASURES, measure_run
from geco_experiments.studies.constraints import fano, mosaic

LEVELS = {"re": 0.3, "fre": 0.2, "cla": 0.4, "pncc": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("constraint", LEVELS)
def test_each_measure_is_that_of_the_constraint_itself(tiny, folder, constraint):
    """The run's own evaluation of its constraint and the measures agree in every digit."""
    kappa = LEVELS[constraint]
    config = tiny(
        **{
            "objective.constraint": constraint,
            "objective.kappa": kappa,
            "objective.classifier_steps": 30,
        }
    )
    path = run(config, folder / "runs")
    finished = open_run(path).reset_coords(drop=True)
    found = measure_run(config, path, folder / "measures", DataHome.resolve())
    assert set(MEASURES) <= set(found.data_vars)
    violation = {
        "re": found["rms_error"] ** 2 - kappa**2,
        "fre": found["feature_error"] ** 2 - kappa**2,
        "cla": kappa - found["class_probability"],
        "pncc": kappa - found["patch_correlation"],
    }[constraint]
    xr.testing.assert_allclose(violation, finished["final_constraint"], atol=1e-7)
    xr.testing.assert_allclose(found["rms_error"], finished["final_rms_error"], rtol=1e-9)
    assert (found["label_entropy"] <= math.log(10)).all()
    # one classifier for all runs of a dataset
    assert len(list((folder / "runs" / "classifiers").glob("*.pt"))) == 1


def test_measures_are_kept(tiny, folder, monkeypatch):
    config = tiny(**{"objective.kappa": 0.31, "objective.classifier_steps": 30})
    path = run(config, folder / "runs")
    first = measure_run(config, path, folder / "measures", DataHome.resolve())
    monkeypatch.setattr("geco_experiments.evaluation.constraints.datasets.load", None)
    again = measure_run(config, path, folder / "measures", DataHome.resolve())
    xr.testing.assert_equal(first, again)
    assert all(again[name].attrs["long_name"] and again[name].attrs["units"] for name in MEASURES)


def test_fano_is_tight_for_a_symmetric_error():
    """A class of ten told rightly with p and else uniformly carries just that information."""
    p = 0.93
    table = np.full((10, 10), (1 - p) / 9 / 10)
    np.fill_diagonal(table, p / 10)
    information = float((table * np.log(table / 0.01)).sum())
    assert fano(math.log(10), p, 10) == pytest.approx(information)
    assert fano(math.log(10), 1.0, 10) == pytest.approx(math.log(10))
    assert fano(math.log(10), 0.1, 10) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_holds_every_image(channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (6, channels, 5, 7), generator=generator).numpy()
    sheet = mosaic(images.astype(np.uint8)).reshape(11, 31, channels)
    for index, image in enumerate(images):
        top, left = 6 * (index // 4), 8 * (index % 4)
        np.testing.assert_array_equal(
            sheet[top : top + 5, left : left + 7], image.transpose(1, 2, 0)
        )
    assert (sheet[5] == 255).all()
