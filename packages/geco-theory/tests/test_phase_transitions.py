import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from geco_theory import PhaseTransitions

QUICK = {"temperatures": 6, "n_transitions": 1}


@pytest.fixture(scope="module")
def fitted(blobs: np.ndarray) -> PhaseTransitions:
    return PhaseTransitions(temperatures=15, n_transitions=3).fit(blobs)


@pytest.mark.parametrize("masses", ["free", "equal"])
def test_scikit_learn_accepts_it_whole(masses: Any) -> None:
    estimator = PhaseTransitions(masses, temperatures=2, n_transitions=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the data that the checks pass
        results = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    skipped = [r["check_name"] for r in results if r["status"] == "skipped"]
    assert failed == []
    assert set(skipped) <= {"check_array_api_input"}


def test_the_path_has_units_and_is_certified(fitted: PhaseTransitions) -> None:
    path = fitted.path_
    names = {"distortion", "rate", "free_energy", "n_clusters", "certificate", "converged"}
    assert set(path.data_vars) == names
    assert all({"units", "long_name"} <= set(path[name].attrs) for name in [*names, "temperature"])
    assert (np.diff(path["temperature"]) > 0).all()
    assert bool(path["converged"].all())
    assert float(path["certificate"].max()) <= 1e-9
    assert (np.diff(path["n_clusters"]) <= 0).all()
    assert (np.diff(path["distortion"]) >= -1e-9).all()
    assert (np.diff(path["rate"]) <= 1e-9).all()
    expected = path["distortion"] / 2 + path["temperature"] * path["rate"]
    np.testing.assert_allclose(path["free_energy"], expected, rtol=1e-10)


def test_stability_is_the_top_covariance_eigenvalue(
    fitted: PhaseTransitions, blobs: np.ndarray
) -> None:
    exact = np.linalg.eigvalsh(np.cov(blobs.T, bias=True))[-1]
    assert fitted.stability_temperature_ == pytest.approx(exact, rel=1e-12)
    assert fitted.critical_temperatures_[0] >= fitted.stability_temperature_


def test_critical_temperatures_are_where_the_count_changes(fitted: PhaseTransitions) -> None:
    critical = fitted.critical_temperatures_
    assert len(critical) == 4
    assert (np.diff(critical) < 0).all()
    for number, temperature in enumerate(critical, start=1):
        assert fitted.n_clusters(temperature * (1 + 2e-5)) == number
        assert fitted.n_clusters(temperature * (1 - 2e-5)) == number + 1
    table = fitted.transitions_
    assert set(table["kind"].to_numpy()) == {"birth", "stability limit"}
    np.testing.assert_allclose(np.linalg.norm(table["direction"], axis=1), 1.0)
    assert (np.diff(table["temperature"]) <= 0).all()


def test_predict_solves_new_temperatures(fitted: PhaseTransitions) -> None:
    X, truth = make_blobs(60, random_state=0)
    labels = fitted.predict(X, temperature=2.0)
    assert adjusted_rand_score(truth, labels) > 0.5
    values = fitted.decoder_values(2.0)
    assert values.sizes["cluster"] == fitted.n_clusters(2.0)
    gaps = np.square(X[:, None] - values["value"].to_numpy()[None]).sum(axis=2)
    best = np.argmax(np.log(values["mass"].to_numpy()) - gaps / 4.0, axis=1)
    np.testing.assert_array_equal(labels, best)
    np.testing.assert_array_equal(
        np.unique(fitted.labels_), np.arange(len(np.unique(fitted.labels_)))
    )


@settings(deadline=None, max_examples=6)
@given(st.integers(-60, 60), st.integers(0, 1000), st.booleans())
def test_scale_shift_rotation_and_repetition_change_nothing(
    power: int, seed: int, repeat: bool
) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(12, 3)) * [2, 1, 1]
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    scale = 2.0**power
    Y = scale * (X @ rotation + rng.normal(size=3))
    Y = np.concatenate([Y, Y]) if repeat else Y
    one = PhaseTransitions(**QUICK).fit(X)
    other = PhaseTransitions(**QUICK).fit(Y)
    np.testing.assert_allclose(
        other.path_["temperature"], scale**2 * one.path_["temperature"], rtol=1e-8
    )
    np.testing.assert_allclose(other.path_["rate"], one.path_["rate"], atol=1e-6)
    np.testing.assert_allclose(
        other.path_["free_energy"], scale**2 * one.path_["free_energy"], rtol=1e-8
    )
    np.testing.assert_array_equal(other.path_["n_clusters"], one.path_["n_clusters"])


def test_single_precision_data_have_the_answer_of_the_same_numbers_in_double(
    blobs: np.ndarray,
) -> None:
    single = blobs.astype(np.float32)
    one = PhaseTransitions(**QUICK).fit(single)
    other = PhaseTransitions(**QUICK).fit(single.astype(np.float64))
    np.testing.assert_array_equal(one.critical_temperatures_, other.critical_temperatures_)
    assert one.path_.identical(other.path_)
    assert one.path_["free_energy"].dtype == np.float64


def test_the_order_of_the_temperatures_does_not_matter(blobs: np.ndarray) -> None:
    grid = np.geomspace(0.2, 5, 6)
    found = [
        PhaseTransitions(temperatures=grid, n_transitions=0, **kwargs).fit(blobs).path_
        for kwargs in ({}, {"direction": "cooling"}, {"n_jobs": 2})
    ]
    for path in found[1:]:
        np.testing.assert_allclose(path["free_energy"], found[0]["free_energy"], rtol=1e-9)
        np.testing.assert_array_equal(path["n_clusters"], found[0]["n_clusters"])
    np.testing.assert_array_equal(found[0]["temperature"], grid)


def test_separate_groups_cost_the_logarithm_of_their_number() -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(10 * np.eye(4), 15, axis=0) + 0.1 * rng.normal(size=(60, 4))
    path = PhaseTransitions(temperatures=[0.5, 1.0, 2.0], n_transitions=0).fit(X).path_
    np.testing.assert_array_equal(path["n_clusters"], 4)
    np.testing.assert_allclose(path["rate"], np.log(4), atol=1e-4)


def test_cold_tiles_cost_the_logarithm_of_the_samples(blobs: np.ndarray) -> None:
    for masses in ("free", "equal"):
        path = PhaseTransitions(masses, temperatures=[1e-5], n_transitions=0).fit(blobs).path_
        assert float(path["rate"][0]) == pytest.approx(np.log(60), rel=1e-6)
        assert int(path["n_clusters"][0]) == 60
        assert float(path["distortion"][0]) < 1e-9


def test_equal_masses_have_two_branches(blobs: np.ndarray) -> None:
    found = PhaseTransitions("equal", temperatures=10, direction="both", n_transitions=3)
    found.fit(blobs)
    kinds = found.transitions_["kind"].to_numpy()
    assert {"merge", "split", "stability limit"} <= set(kinds)
    assert np.isnan(found.path_["certificate"]).all()
    np.testing.assert_array_equal(found.cooling_path_["temperature"], found.path_["temperature"])
    free = PhaseTransitions(temperatures=10, n_transitions=0).fit(blobs)
    grid = found.path_["temperature"].to_numpy()
    bound = PhaseTransitions(temperatures=grid, n_transitions=0).fit(blobs).path_
    assert free.critical_temperatures_[0] >= free.stability_temperature_
    for path in (found.path_, found.cooling_path_):
        assert (path["free_energy"] >= bound["free_energy"] - 1e-9).all()


def test_a_certificate_from_a_sample_of_the_data_says_so(
    blobs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"temperatures": 8, "n_transitions": 0, "tolerance": 1e-6}
    whole = PhaseTransitions(**settings).fit(blobs).path_
    assert "search" not in whole["certificate"].attrs
    monkeypatch.setattr("geco_theory.npmle.search._SAMPLE", 30)
    lean = PhaseTransitions(working_memory=0.01, **settings).fit(blobs).path_
    assert "sample" in lean["certificate"].attrs["search"]
    assert lean["converged"].all()
    gap = (lean["free_energy"] - whole["free_energy"]) / lean["temperature"]
    assert abs(gap).max() < 2e-6


def test_cooling_stops_at_the_number_of_clusters_asked_for(blobs: np.ndarray) -> None:
    found = PhaseTransitions(temperatures=15, max_clusters=4, n_transitions=0).fit(blobs)
    counts = found.path_["n_clusters"].to_numpy()
    assert counts[0] > 4
    assert (counts[1:] <= 4).all()
    assert found.path_.sizes["temperature"] < 15


def test_progress_is_told_and_an_interruption_keeps_what_is_done(blobs: np.ndarray) -> None:
    seen: list[dict[str, Any]] = []

    def progress(state: dict[str, Any]) -> None:
        seen.append(state)
        if len(seen) == 4:
            raise KeyboardInterrupt

    estimator = PhaseTransitions(temperatures=10, progress=progress)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(blobs)
    assert [s["done"] for s in seen] == [1, 2, 3, 4]
    assert {s["total"] for s in seen} == {10}
    assert set(seen[0]) == {"stage", "done", "total", "temperature", "n_clusters"}
    assert estimator.path_.sizes["temperature"] == 4
    assert len(estimator.predict(blobs)) == 60


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"masses": "heavy"}, "`masses` must be 'free' or 'equal'"),
        ({"direction": "up"}, "`direction` must be"),
        ({"direction": "both"}, "needs `masses='equal'`"),
        ({"tolerance": 0.0}, "`tolerance` must be positive"),
        ({"n_transitions": -1}, "`n_transitions` must be at least 0"),
        ({"max_clusters": 0}, "`max_clusters` must be at least 1"),
        ({"working_memory": -1.0}, "`working_memory` must be positive"),
        ({"temperatures": [1.0, -1.0]}, "positive finite"),
    ],
)
def test_bad_parameters_are_refused(
    blobs: np.ndarray, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PhaseTransitions(**kwargs).fit(blobs)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((5, 2)), "zero variance"),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), "NaN"),
        (np.array([[1.0, np.inf], [0.0, 1.0]]), "infinity"),
        (np.array([[1.0, 2.0]]), "1 sample"),
        (np.zeros(5), "1D array"),
    ],
)
def test_bad_data_are_refused(X: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhaseTransitions().fit(X)


def test_sparse_data_are_refused() -> None:
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        PhaseTransitions().fit(scipy.sparse.eye_array(5).tocsr())


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan])
def test_bad_temperatures_are_refused(fitted: PhaseTransitions, temperature: float) -> None:
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        fitted.n_clusters(temperature)


def test_nothing_of_an_earlier_fit_stays(blobs: np.ndarray) -> None:
    analysis = PhaseTransitions("equal", temperatures=4, direction="both", n_transitions=0)
    analysis.fit(blobs)
    assert hasattr(analysis, "cooling_path_")
    analysis.set_params(direction="heating").fit(blobs[:, :1])
    assert not hasattr(analysis, "cooling_path_")
    assert analysis.n_features_in_ == 1

    def stop(state: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    before = analysis.transitions_
    with pytest.raises(KeyboardInterrupt):
        analysis.set_params(progress=stop).fit(blobs)
    assert analysis.transitions_ is not before


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"n_jobs": "a"}, TypeError),
        ({"n_jobs": 0}, ValueError),
        ({"progress": 3}, TypeError),
        ({"temperatures": [1e-310]}, ValueError),
        ({"temperatures": [1e300]}, ValueError),
    ],
)
def test_arguments_that_would_fail_later_are_refused_at_once(
    blobs: np.ndarray, parameters: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"`{next(iter(parameters))}` must"):
        PhaseTransitions(**parameters).fit(blobs)


def test_weights_count_samples_that_often(blobs: np.ndarray) -> None:
    X = blobs[:25]
    weights = np.random.default_rng(0).integers(0, 4, size=25)
    common = {"temperatures": [0.5, 1.0, 3.0], "n_transitions": 0}
    weighted = PhaseTransitions(**common).fit(X, sample_weight=weights * 0.7)
    repeated = PhaseTransitions(**common).fit(np.repeat(X, weights, axis=0))
    for name in ("free_energy", "distortion", "rate"):
        np.testing.assert_allclose(weighted.path_[name], repeated.path_[name], rtol=1e-8)
    assert weighted.labels_.shape == (25,)
    np.testing.assert_array_equal(
        weighted.predict(X, 1.0), repeated.predict(X, 1.0)
    )  # samples without weight have a label as well


def test_weights_that_cannot_be(blobs: np.ndarray) -> None:
    for weights, words in (
        (np.zeros(60), "positive somewhere|non-zero"),
        (-np.ones(60), "[Nn]egative"),
        (np.ones(3), "sample_weight.shape"),
    ):
        with pytest.raises(ValueError, match=words):
            PhaseTransitions().fit(blobs, sample_weight=weights)
    with pytest.raises(ValueError, match="whole numbers with `masses='equal'`"):
        PhaseTransitions("equal").fit(blobs, sample_weight=np.full(60, 0.5))


def test_fit_predict_is_fit_and_its_labels(blobs: np.ndarray) -> None:
    analysis = PhaseTransitions(temperatures=5, n_transitions=0)
    labels = analysis.fit_predict(blobs)
    np.testing.assert_array_equal(labels, analysis.labels_)
    np.testing.assert_array_equal(labels, analysis.fit(blobs).labels_)


def test_masked_values_are_refused(blobs: np.ndarray) -> None:
    masked = np.ma.masked_array(blobs.copy(), mask=False)
    analysis = PhaseTransitions(temperatures=4, n_transitions=0).fit(masked)
    masked[3, 1] = np.ma.masked
    with pytest.raises(ValueError, match="no masked values, got 1"):
        analysis.predict(masked)
    with pytest.raises(ValueError, match="no masked values, got 1"):
        analysis.fit(masked)
    assert hasattr(analysis, "path_")  # a refusal loses nothing


def test_the_useful_part_of_the_path_comes_first(digits: np.ndarray) -> None:
    seen: list[tuple[float, int]] = []
    PhaseTransitions(
        temperatures=10,
        n_transitions=0,
        tolerance=1e-6,
        progress=lambda state: seen.append((state["temperature"], state["n_clusters"])),
    ).fit(digits)
    assert seen[0][1] == 1
    heats = np.array([t for t, _ in seen])
    turn = next(i for i, (_, k) in enumerate(seen) if k > 75)
    assert (np.diff(heats[: turn + 1]) < 0).all()
    assert (np.diff(heats[turn + 1 :]) > 0).all()
    assert len(heats) == 10
