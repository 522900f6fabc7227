import math

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import brentq

from geco_theory.linear_vae import linear_vae_optimum
from geco_theory.phase_transitions import PhaseTransitions
from geco_theory.rate_distortion import bound_margin, free_energy_bound, rate_distortion_curve


def two_points(temperature: float) -> tuple[float, float]:
    """RE and KL of the optimum for the data -1 and 1: psi = tanh(psi / T)."""
    if temperature >= 1.0:
        return 1.0, 0.0
    psi = brentq(lambda p: p - math.tanh(p / temperature), 1e-9, 1.0)
    q = 1 / (1 + math.exp(-2 * psi / temperature))
    error = q * (1 - psi) ** 2 + (1 - q) * (1 + psi) ** 2
    entropy = -q * math.log(q) - (1 - q) * math.log(1 - q) if q < 1 else 0.0
    return error, math.log(2) - entropy


@pytest.fixture(scope="module")
def pair() -> xr.Dataset:
    X = np.array([[-1.0], [1.0]])
    return PhaseTransitions(temperatures=np.geomspace(0.15, 1.1, 30)).fit(X).path_


@pytest.fixture(scope="module")
def cloud() -> tuple[np.ndarray, xr.Dataset]:
    X = np.random.default_rng(0).standard_t(5, size=(40, 3)) * [2.0, 1.0, 0.5]
    return X, PhaseTransitions(temperatures=12).fit(X).path_


@pytest.mark.parametrize("temperature", [0.2, 0.37, 0.61, 0.83, 0.97])
def test_two_points_have_the_rate_of_the_closed_form(pair: xr.Dataset, temperature: float) -> None:
    error, rate = two_points(temperature)
    found = rate_distortion_curve(pair, math.sqrt(error), n_features=1)
    assert float(found.rate[0]) == pytest.approx(rate, abs=2e-4)
    assert float(found.rate_lower[0]) <= rate + 1e-6
    assert float(found.rate_upper[0]) >= rate - 1e-6
    assert float(found.temperature[0]) == pytest.approx(temperature, rel=0.01)
    assert float(found.multiplier[0]) == pytest.approx(1 / (2 * temperature), rel=0.01)
    relative = float(found.multiplier[0]) * error
    assert float(found.relative_multiplier[0]) == pytest.approx(relative, rel=1e-12)


def test_several_elements_rescale_the_multiplier(pair: xr.Dataset) -> None:
    one = rate_distortion_curve(pair, 0.5, n_features=1)
    four = rate_distortion_curve(pair, 0.25, n_features=4)
    assert float(one.rate[0]) == float(four.rate[0])
    assert float(four.multiplier[0]) == pytest.approx(4 * float(one.multiplier[0]))


def test_a_tolerance_above_the_spread_costs_nothing(pair: xr.Dataset) -> None:
    found = rate_distortion_curve(pair, [1.0, 5.0], n_features=1)
    np.testing.assert_array_equal(found.rate, 0.0)
    np.testing.assert_array_equal(found.multiplier, 0.0)


def test_below_the_path_only_the_bound_is_known(pair: xr.Dataset) -> None:
    found = rate_distortion_curve(pair, 1e-3, n_features=1)
    assert np.isnan(float(found.rate[0]))
    assert 0.5 < float(found.rate_lower[0]) <= math.log(2)


def test_a_path_without_its_top_does_not_claim_that_anything_is_free(pair: xr.Dataset) -> None:
    part = pair.isel(temperature=slice(0, 15))
    found = rate_distortion_curve(part, 0.99, n_features=1)
    assert np.isnan(float(found.rate[0]))


def test_by_default_the_path_itself(cloud: tuple[np.ndarray, xr.Dataset]) -> None:
    path = cloud[1]
    found = rate_distortion_curve(path, n_features=3)
    assert (np.diff(found.rate) <= 0).all()
    np.testing.assert_allclose(found.distortion, np.unique(path.distortion), rtol=1e-12)
    assert float(found.rate[0]) == pytest.approx(float(path.rate.max()), rel=1e-9)


def test_the_bound_touches_the_curve_and_is_convex(cloud: tuple[np.ndarray, xr.Dataset]) -> None:
    path = cloud[1]
    at_solved = free_energy_bound(path, path.distortion.values)
    np.testing.assert_allclose(at_solved.rate, path.rate, atol=1e-5)
    line = free_energy_bound(path)
    rate = line.rate.values
    assert (np.diff(rate) <= 1e-12).all()
    assert (np.diff(rate, 2) >= -1e-9).all()
    assert rate[-1] == 0.0
    assert np.isnan(line.temperature[-1])


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4, 0.8, 0.99])
def test_linear_models_lie_above_the_bound(
    cloud: tuple[np.ndarray, xr.Dataset], share: float
) -> None:
    X, path = cloud
    covariance = np.cov(X.T, bias=True)
    kappa = math.sqrt(share * np.trace(covariance) / 3)
    optimum = linear_vae_optimum(covariance, kappa)
    found = bound_margin(path, optimum.distortion, optimum.rate)
    assert float(found.margin[0]) >= 0.0
    assert float(found.excess_rate[0]) >= 0.0
    # a rate that no model can have is noticed
    claimed = 0.9 * float(found.smallest_rate[0])
    assert float(bound_margin(path, optimum.distortion, claimed).margin[0]) < 0.0


def test_the_optimum_itself_has_no_margin(cloud: tuple[np.ndarray, xr.Dataset]) -> None:
    path = cloud[1]
    found = bound_margin(path, path.distortion.values, path.rate.values)
    np.testing.assert_allclose(found.margin, 0.0, atol=1e-5)
    np.testing.assert_allclose(found.excess_rate, 0.0, atol=1e-5)


def test_the_certificate_is_taken_off(pair: xr.Dataset) -> None:
    loose = pair.assign(certificate=pair.certificate * 0 + 0.1)
    strict, lower = (free_energy_bound(p, 0.3).rate[0] for p in (pair, loose))
    assert float(strict - lower) == pytest.approx(0.1, abs=1e-3)


def test_bad_input(pair: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="`path` must be the `path_`"):
        free_energy_bound(xr.Dataset())
    equal = pair.assign(certificate=pair.certificate * np.nan)
    with pytest.raises(ValueError, match='`path` must be of masses="free"'):
        free_energy_bound(equal)
    with pytest.raises(ValueError, match="`kappa` must be positive"):
        rate_distortion_curve(pair, [0.0, 1.0], n_features=1)
    with pytest.raises(ValueError, match="`kappa` must be a number"):
        rate_distortion_curve(pair, [np.nan], n_features=1)
    with pytest.raises(ValueError, match="`n_features` must be at least 1"):
        rate_distortion_curve(pair, 0.5, n_features=0)
    with pytest.raises(ValueError, match="`distortion` must be a number"):
        free_energy_bound(pair, -1.0)
    with pytest.raises(ValueError, match="one value per model"):
        bound_margin(pair, [1.0, 2.0], [1.0])


def test_a_bound_from_a_sampled_certificate_says_that_it_is_an_estimate(pair: xr.Dataset) -> None:
    sampled = pair.copy()
    sampled["certificate"] = pair["certificate"].copy()
    sampled["certificate"].attrs = {**pair["certificate"].attrs, "search": "from a sample"}
    for path, estimated in ((pair, False), (sampled, True)):
        curve = rate_distortion_curve(path, 0.5, n_features=1)
        bound = free_energy_bound(path, 0.5)
        margin = bound_margin(path, [0.5], [1.0])
        for variable in (curve.rate_lower, bound.rate, margin.margin, margin.excess_rate):
            assert ("no strict bound" in variable.attrs.get("search", "")) is estimated
        assert "search" not in curve.rate_upper.attrs  # a solved point is one all the same
