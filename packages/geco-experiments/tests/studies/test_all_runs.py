"""The checks over every run: what counts as a hit, as a miss, and as a point below the bound."""

import math

import numpy as np
import pytest
import xarray as xr

from geco_experiments.studies.all_runs import AllRuns, below_bound, deviation, outcome


def finished(error, kappa=0.1, kl=20.0, least=10.0, kl_error=0.1, asked=1, words="met"):
    """Runs as `measure` leaves them, one for each error."""
    error = np.atleast_1d(np.asarray(error, dtype=float))
    number = error.size

    def per_run(value):
        return ("run", np.broadcast_to(value, number).copy())

    def per_split(value):
        return (("run", "split"), np.repeat(np.broadcast_to(value, number)[:, None], 2, axis=1))

    return xr.Dataset(
        {
            "final_rms_error": per_split(error),
            "final_kl": per_split(kl),
            "final_kl_error": per_split(kl_error),
            "least_kl_at_run": per_run(least),
            "asked": per_run(asked),
            "outcome": per_run(words),
        },
        coords={
            "split": ["train", "test"],
            "kappa": per_run(kappa),
            "name": ("run", [f"run{index}" for index in range(number)]),
            "model": per_run("conv-vae"),
            "dataset": per_run("digits"),
        },
    )


def test_deviation_is_relative_and_only_of_runs_that_were_asked():
    data = finished([0.101, 0.098, 0.5], asked=[1, 1, 0])
    np.testing.assert_allclose(deviation(data, "train"), [0.01, -0.02, math.nan])


@pytest.mark.parametrize(
    ("misses", "verdict"),
    [
        (0, "holds"),
        (1, "holds"),
        (2, "does not hold here"),
        (5, "does not hold here"),
        (6, "does not hold here"),
    ],
)
def test_nine_of_ten_runs_must_hit_the_target(misses, verdict):
    errors = [0.1] * (10 - misses) + [0.103] * misses
    assert AllRuns([]).claims(finished(errors))[0].verdict == verdict


def test_an_error_too_small_is_a_miss_as_well():
    assert "0 of 1 run (" in AllRuns([]).claims(finished([0.097]))[0].measured


def test_a_point_below_the_bound_is_seen_beyond_its_sampling_error():
    kl = np.array([9.7, 9.5, 30.0])
    data = finished([0.1] * 3, kl=kl, least=10.0, kl_error=0.1)
    assert below_bound(data) == (1, 3, pytest.approx(-0.5))
    assert AllRuns([]).claims(data)[1].verdict == "does not hold here"
    assert AllRuns([]).claims(data.isel(run=[0, 2]))[1].verdict == "holds"


@pytest.mark.parametrize("least", [math.nan, 0.0])
def test_runs_without_a_bound_decide_nothing(least):
    data = finished([0.1, 0.1], least=least)
    assert below_bound(data)[:2] == (0, 0)
    assert AllRuns([]).claims(data)[1].verdict == "not decided"


def test_every_miss_is_listed_with_what_happened():
    data = finished([0.1, 0.12], words=["hit", "not met in 9 steps"])
    counts, missed = AllRuns([]).tables(data)
    assert counts.rows == (("VAE", "digits", "2", "1", "10.00%", "10.00%"),)
    assert missed.rows == (("run1", "0.1", "+20.0%", "+20.0%", "not met in 9 steps"),)
    assert len(AllRuns([]).tables(finished([0.1]))) == 1  # no table of nothing


def history(average, multiplier, saturated):
    steps = np.arange(1, len(average) + 1)
    return xr.Dataset(
        {
            "moving_average": ("step", np.asarray(average, dtype=float)),
            "multiplier": ("step", np.asarray(multiplier, dtype=float)),
            "saturated": ("step", np.asarray(saturated)),
        },
        coords={"step": steps},
    )


def test_the_outcome_is_read_off_the_history():
    rises = [1.0, 2.0, 4.0, 1.0]
    met = outcome(history([3, 1, -1, -2], rises, [0, 0, 0, 0]))
    assert met == "met at step 3 of 4; λ ended at 0.25 of its peak"
    bound = outcome(history([3, 2, 1, 1], rises, [0, 0, 1, 1]))
    assert bound == "not met in 4 steps; λ at its bound for 50% of them"
    assert outcome(history([3, 2, 1, 1], rises, [0] * 4)).endswith("λ was still rising")
