"""One run beside one for each tolerance: what decides the claims."""

import numpy as np
import pytest
import xarray as xr

from geco_experiments.studies.common.profiles import KAPPAS, Profile
from geco_experiments.studies.one_run import OneRun, more_kl


def table(errors, kl, *, single=True, single_errors=KAPPAS):
    """One seed of single runs with KL 10, then the runs over the range, long and short."""
    rows = []
    if single:
        rows += [("geco", 1, k, e, 10.0) for k, e in zip(KAPPAS, single_errors, strict=True)]
    for longer in (1, 5) if single else (5,):
        rows += [
            ("geco-range", longer, k, e, v) for k, e, v in zip(KAPPAS, errors, kl, strict=True)
        ]
    objective, longer, kappa, error, value = zip(*rows, strict=True)
    pair = ("run", "split")
    return xr.Dataset(
        {
            "final_rms_error": (pair, np.array(error)[:, None]),
            "final_kl": (pair, np.array(value)[:, None]),
            "seconds": ("run", np.ones(len(rows))),
        },
        coords={
            "split": ["train"],
            "objective": ("run", list(objective)),
            "longer": ("run", list(longer)),
            "steps": ("run", [100 * one for one in longer]),
            "kappa": ("run", list(kappa)),
            "seed": ("run", [0] * len(rows)),
        },
    )


def verdicts(data):
    return [claim.verdict for claim in OneRun().claims(data)]


@pytest.mark.parametrize(
    ("factor", "kl", "expected"),
    [
        (1.0, 10.0, ["holds"] * 3),
        (1.0, 10.4, ["holds"] * 3),
        (1.0, 10.6, ["holds", "does not hold here", "does not hold here"]),
        (1.03, 10.0, ["does not hold here", "not decided", "not decided"]),
        (0.97, 5.0, ["does not hold here", "not decided", "not decided"]),
    ],
)
def test_errors_within_two_per_cent_and_nats_within_five(factor, kl, expected):
    errors = [factor * kappa for kappa in KAPPAS]
    assert verdicts(table(errors, [kl] * 5)) == expected


def test_a_single_miss_decides_and_is_named():
    errors = [0.0618, *KAPPAS[1:]]
    reached, together, each = OneRun().claims(table(errors, [10.0, 10.0, 11.0, 10.0, 10.0]))
    assert reached.verdict == "does not hold here"
    assert "κ = 0.06: +3.0%" in reached.measured
    for claim in (together, each):
        assert claim.verdict == "does not hold here"
        assert "3 of 4 κ (more: κ = 0.1: +10.0%) (errors differ at: κ = 0.06)" in claim.measured


def test_a_single_run_that_missed_is_no_measure():
    missed = (0.07, *KAPPAS[1:])
    data = table(KAPPAS, [10.0] * 5, single_errors=missed)
    np.testing.assert_allclose(more_kl(data, 5), [np.nan, 0, 0, 0, 0])
    assert verdicts(data) == ["holds"] * 3


def test_without_single_runs_only_the_errors_are_judged():
    study, data = OneRun(), table(KAPPAS, [10.0] * 5, single=False)
    (claim,) = study.claims(data)
    assert claim.verdict == "holds"
    assert "--profile laptop --study one-run" in study.notes(data)[0]
    assert [len(one.columns) for one in study.tables(data)] == [3, 3]


def test_one_run_costs_what_its_length_says():
    (_, costs) = OneRun().tables(table(KAPPAS, [10.0] * 5))
    assert [row[1] for row in costs.rows] == ["500", "100", "500"]
    laptop = OneRun().configs(Profile("laptop"))
    ranged = [config for config in laptop if config.objective.kappa_range]
    single = {config.training.steps for config in laptop if not config.objective.kappa_range}
    (steps,) = single
    assert [config.training.steps for config in ranged] == [steps, 5 * steps]
    assert all(config.objective.tolerances == KAPPAS for config in ranged)
