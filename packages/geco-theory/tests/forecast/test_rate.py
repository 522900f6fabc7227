import numpy as np
import pytest

from geco_theory import PhaseTransitions, forecast_rate

NAMES = {
    "floor",
    "forecast",
    "standard_error",
    "linear",
    "beta",
    "multiplier",
    "latents",
    "gap",
    "components",
}


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    """Six groups of unequal shape in eight features."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 8)) * 6
    label = rng.integers(6, size=6000)
    shape = rng.uniform(0.1, 1.5, size=(6, 8))
    return np.asarray(centres[label] + rng.normal(size=(6000, 8)) * shape[label])


def test_gaussian_data_cost_what_the_linear_optimum_does() -> None:
    X = np.random.default_rng(1).normal(size=(8000, 6)) * [4, 2, 1, 1, 0.5, 0.1]
    table = forecast_rate(X, [0.3, 0.6, 1.0], random_state=0)
    assert set(table.data_vars) == NAMES
    assert list(table["kappa"].values) == [1.0, 0.6, 0.3]
    error = np.abs(table["forecast"] - table["linear"])
    assert (error <= 2 * table["standard_error"] + 0.02).all()
    assert (table["floor"] <= table["forecast"]).all()
    np.testing.assert_allclose(table["multiplier"], 6 / (2 * table["beta"]))


def test_groups_far_apart_cost_their_entropy_and_their_own_linear_codes(
    blobs: np.ndarray,
) -> None:
    table = forecast_rate(blobs, [1.2], random_state=0)
    # the variance within the groups is allowed: only the group is told
    assert float(table["forecast"][0]) == pytest.approx(np.log(6), abs=0.3)
    fine = forecast_rate(blobs, [0.1], random_state=0)
    assert float(fine["forecast"][0]) < float(fine["linear"][0])
    assert float(fine["forecast"][0]) > float(fine["floor"][0])


def test_the_forecast_is_not_capped_by_the_number_of_samples() -> None:
    X = np.random.default_rng(2).normal(size=(60, 20))
    table = forecast_rate(X, [0.05], random_state=0)
    assert float(table["floor"][0]) <= np.log(60)
    assert float(table["forecast"][0]) > 10 * np.log(60)
    assert float(table["gap"][0]) > 0.0


def test_a_tolerance_that_the_mean_satisfies_costs_nothing(blobs: np.ndarray) -> None:
    spread = np.sqrt(blobs.var(axis=0).mean())
    table = forecast_rate(blobs, [1.1 * spread], random_state=0)
    for name in ("floor", "forecast", "linear", "multiplier", "latents"):
        assert float(table[name][0]) == 0.0, name


@pytest.mark.parametrize(("scale", "offset"), [(1e6, 0.0), (1e-9, 0.0), (1.0, 1e5)])
def test_scale_and_offset_change_the_units_only(
    blobs: np.ndarray, scale: float, offset: float
) -> None:
    X = blobs[:1500]
    plain = forecast_rate(X, [0.3, 0.9], random_state=0)
    moved = forecast_rate(X * scale + offset, [0.3 * scale, 0.9 * scale], random_state=0)
    np.testing.assert_allclose(moved["forecast"], plain["forecast"], rtol=1e-2)
    np.testing.assert_allclose(moved["beta"], plain["beta"] * scale**2, rtol=2e-2)
    np.testing.assert_allclose(moved["latents"], plain["latents"], atol=1.0)


def test_held_out_data_change_the_evaluation_only(blobs: np.ndarray) -> None:
    seen = blobs[:4000]
    same = forecast_rate(seen, [0.3], blobs[4000:5000], random_state=0)
    other = forecast_rate(seen, [0.3], blobs[5000:], random_state=0)
    np.testing.assert_array_equal(same["components"], other["components"])
    assert float(same["forecast"][0]) == pytest.approx(float(other["forecast"][0]), rel=0.05)
    far = forecast_rate(seen, [0.3], blobs[5000:] * 3, random_state=0)
    assert float(far["forecast"][0]) > 1.2 * float(same["forecast"][0])


def test_the_same_random_state_gives_the_same_answer(blobs: np.ndarray) -> None:
    first = forecast_rate(blobs[:800], [0.4], random_state=3)
    again = forecast_rate(blobs[:800], [0.4], random_state=3)
    assert first.identical(again)


def test_the_floor_is_that_of_an_analysis_where_one_is_given(blobs: np.ndarray) -> None:
    X = blobs[:200]
    analysis = PhaseTransitions(temperatures=8, n_transitions=0).fit(X)
    table = forecast_rate(X, [0.8], random_state=0, analysis=analysis)
    assert 0.0 < float(table["floor"][0]) <= np.log(200)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kappa": [0.0]}, "`kappa` must be positive"),
        ({"kappa": []}, "`kappa` must be positive"),
        ({"kappa": [np.nan]}, "`kappa` must be positive"),
        ({"kappa": [0.1], "X_held_out": np.zeros((3, 2))}, "must have the 8 features"),
    ],
)
def test_bad_arguments(blobs: np.ndarray, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        forecast_rate(blobs[:100], **arguments)


def test_too_few_samples(blobs: np.ndarray) -> None:
    with pytest.raises(ValueError, match="minimum of 20"):
        forecast_rate(blobs[:19], [0.1])


def test_a_tolerance_that_is_no_number(blobs: np.ndarray) -> None:
    with pytest.raises(TypeError, match="`kappa` must be a number"):
        forecast_rate(blobs[:100], "small")


def test_data_without_variance_cost_nothing() -> None:
    table = forecast_rate(np.ones((30, 3)), [0.1])
    assert float(table["forecast"][0]) == float(table["floor"][0]) == 0.0
