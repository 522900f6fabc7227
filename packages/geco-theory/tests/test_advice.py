import math

import numpy as np
import pytest
import xarray as xr

from geco_theory.advice import advise
from geco_theory.forecast import forecast_rate
from geco_theory.linear_vae import linear_vae_optimum
from geco_theory.phase_transitions import PhaseTransitions

X = np.random.default_rng(1).standard_t(5, size=(30, 3)) * [3.0, 1.0, 0.3] + 100.0


@pytest.fixture(scope="module")
def analysis() -> PhaseTransitions:
    return PhaseTransitions(temperatures=12).fit(X)


@pytest.fixture(scope="module")
def table(analysis: PhaseTransitions) -> xr.Dataset:
    return advise(X, analysis=analysis)


def test_rows_are_what_the_parts_say(table: xr.Dataset, analysis: PhaseTransitions) -> None:
    np.testing.assert_allclose(
        table.explained_variance, [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99], rtol=1e-9
    )
    covariance = np.cov(X.T, bias=True)
    for i, kappa in enumerate(table.kappa.values):
        optimum = linear_vae_optimum(covariance, kappa)
        assert float(table.linear_rate[i]) == pytest.approx(optimum.rate, rel=1e-8)
        assert float(table.linear_multiplier[i]) == pytest.approx(optimum.multiplier, rel=1e-8)
        assert int(table.active_dimensions[i]) == optimum.active_dimensions
    assert (table.smallest_rate <= table.linear_rate + 1e-9).all()
    assert (np.diff(table.smallest_rate) >= 0).all()
    exact = table.exact.values
    level = table.temperature.values[exact]
    np.testing.assert_allclose(table.multiplier.values[exact], 3 / (2 * level), rtol=1e-12)
    assert (np.diff(level) <= 0).all()
    top = analysis.critical_temperatures_[0]
    assert (level <= top * (1 + 1e-6)).all()
    assert np.nanmin(table.critical_above.values[exact] - level) >= 0.0


def test_every_row_has_one_sentence_with_its_numbers(table: xr.Dataset) -> None:
    for i, sentence in enumerate(table.sentence.values):
        assert str(sentence).endswith(".")
        assert "\n" not in sentence
        assert f"{float(table.kappa[i]):.4g}" in sentence
        assert f"{float(table.smallest_rate[i]):.3g} nats" in sentence
        assert f"{int(table.active_dimensions[i])} active" in sentence
    assert "1 active dimension;" in str(table.sentence.values[0])


def test_own_tolerances_sorted_and_a_free_one(analysis: PhaseTransitions) -> None:
    table = advise(X, [0.5, 1e3, 1.0], analysis=analysis)
    np.testing.assert_array_equal(table.kappa, [1e3, 1.0, 0.5])
    assert float(table.smallest_rate[0]) == 0.0
    assert float(table.multiplier[0]) == 0.0
    assert "nothing needs to be encoded" in str(table.sentence.values[0])


def test_without_an_analysis_the_path_reaches_the_smallest_tolerance() -> None:
    few = X[:12]
    table = advise(few, [1.0, 0.05])
    assert bool(table.exact.all())
    assert 0.0 < float(table.smallest_rate[1]) <= math.log(12)


def test_scaling_the_data_scales_the_table(table: xr.Dataset) -> None:
    scale = 1e-3
    scaled = advise(X * scale, analysis=PhaseTransitions(temperatures=12).fit(X * scale))
    np.testing.assert_allclose(scaled.kappa, table.kappa * scale, rtol=1e-9)
    np.testing.assert_allclose(scaled.linear_rate, table.linear_rate, rtol=1e-8)
    np.testing.assert_allclose(scaled.smallest_rate, table.smallest_rate, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(scaled.temperature, table.temperature * scale**2, rtol=1e-2)


def test_bad_input(analysis: PhaseTransitions) -> None:
    with pytest.raises(ValueError, match="NaN"):
        advise(np.full((4, 2), np.nan))
    with pytest.raises(ValueError, match="`kappa` must be positive"):
        advise(X, [0.0], analysis=analysis)
    with pytest.raises(ValueError, match="`analysis` must be fitted on the same data"):
        advise(X[:, :2], analysis=analysis)


def test_the_forecast_stands_in_the_table_and_in_words() -> None:
    rng = np.random.default_rng(5)
    data = rng.normal(size=(300, 5)) * [4.0, 2.0, 1.0, 0.1, 0.1]
    analysis = PhaseTransitions(temperatures=8, n_transitions=0).fit(data)
    table = advise(data, [0.5, 1.0], analysis=analysis)
    direct = forecast_rate(data, [0.5, 1.0], random_state=0, analysis=analysis)
    np.testing.assert_array_equal(table["forecast"], direct["forecast"])
    np.testing.assert_array_equal(table["forecast_beta"], direct["beta"])
    np.testing.assert_array_equal(table["latents"], direct["latents"])
    for i, sentence in enumerate(table.sentence.values):
        assert f"about {float(table.forecast[i]):.3g} nats for it on unseen data" in str(sentence)
        assert f"take {int(table.latents[i])} latents" in str(sentence)
    # five Gaussian directions: nothing to remember
    assert not any("remembers" in str(s) for s in table.sentence.values)


def test_few_samples_for_the_error_are_warned_of() -> None:
    data = np.random.default_rng(6).normal(size=(60, 100)) / np.arange(1, 101)
    table = advise(data, [0.02])
    assert float(table.gap[0]) > 0.3 * float(table.forecast[0])
    assert "remembers" in str(table.sentence.values[0])


def test_without_a_forecast_there_is_none() -> None:
    table = advise(X, [1.0], forecast=False)
    assert np.isnan(table["forecast"]).all()
    assert "unseen" not in str(table.sentence.values[0])
    assert np.isnan(advise(X[:12], [1.0])["forecast"]).all()  # too few to set some aside


def test_an_analysis_that_ends_too_warm_is_continued() -> None:
    warm = PhaseTransitions(temperatures=[1.0, 5.0, 20.0], n_transitions=0).fit(X)
    table = advise(X, [0.05], analysis=warm, forecast=False)
    assert bool(table.exact[0])
    assert not bool(advise(X, [0.05], analysis=warm, extend=False, forecast=False).exact[0])
