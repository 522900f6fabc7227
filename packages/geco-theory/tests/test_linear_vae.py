import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize

from geco_theory import linear_vae_optimum
from geco_theory.linalg import covariance_spectrum

MU = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.02])
spectra = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12).map(np.array)
shares = st.floats(1e-4, 0.999)


def kappa_for(mu: np.ndarray, share: float) -> float:
    """The tolerance that leaves this share of the variance."""
    return math.sqrt(share * mu.sum() / mu.size)


@pytest.mark.parametrize("distortion", [0.1, 0.3, 1.0, 3.0])
def test_against_a_numerical_optimiser_over_allocations(distortion: float) -> None:
    """Minimise the Gaussian rate over the errors of the directions, knowing no water level."""

    def rate(errors: np.ndarray) -> float:
        return 0.5 * float(np.log(MU / errors).sum())

    found = minimize(
        rate,
        MU * distortion / MU.sum(),
        jac=lambda errors: -0.5 / errors,
        bounds=[(1e-9, m) for m in MU],
        constraints={"type": "eq", "fun": lambda e: e.sum() - distortion, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    optimum = linear_vae_optimum(MU, math.sqrt(distortion / MU.size))
    assert optimum.rate <= rate(found.x) + 1e-9
    assert optimum.rate == pytest.approx(rate(found.x), abs=1e-5)
    errors = np.minimum(optimum.water_level, MU)
    np.testing.assert_allclose(found.x, errors, atol=5e-3)


@pytest.mark.parametrize("distortion", [0.1, 0.3, 1.0, 3.0])
def test_water_level_against_root_finding(distortion: float) -> None:
    level = brentq(lambda t: np.minimum(t, MU).sum() - distortion, 1e-9, 4.0, xtol=1e-15)
    optimum = linear_vae_optimum(MU, math.sqrt(distortion / MU.size))
    assert optimum.water_level == pytest.approx(level, rel=1e-12)
    assert optimum.rate == pytest.approx(0.5 * np.log(np.maximum(MU / level, 1)).sum(), rel=1e-12)
    assert optimum.active_dimensions == int((level < MU).sum())
    assert optimum.distortion == pytest.approx(distortion, rel=1e-12)


def test_gaussian_of_one_dimension_is_the_textbook_formula() -> None:
    optimum = linear_vae_optimum([9.0], 1.5)
    assert optimum.rate == pytest.approx(0.5 * math.log(9.0 / 1.5**2), rel=1e-14)
    assert optimum.multiplier == pytest.approx(1 / (2 * 1.5**2), rel=1e-14)
    assert optimum.relative_multiplier == pytest.approx(0.5, rel=1e-14)


def test_isotropic_data_use_every_dimension_equally() -> None:
    optimum = linear_vae_optimum(np.eye(7) * 3.0, 0.5)
    assert optimum.active_dimensions == 7
    assert optimum.rate == pytest.approx(3.5 * math.log(3.0 / 0.25), rel=1e-13)
    assert optimum.relative_multiplier == pytest.approx(3.5, rel=1e-13)
    assert optimum.multiplier == pytest.approx(7 / (2 * 0.25), rel=1e-13)


@pytest.mark.parametrize("share", [0.003, 0.05, 0.4, 0.9])
def test_multiplier_is_minus_the_slope_of_the_rate_in_the_mean_squared_error(share: float) -> None:
    kappa = kappa_for(MU, share)
    step = 1e-5
    higher, lower = (linear_vae_optimum(MU, kappa * f) for f in (1 + step, 1 - step))
    slope = (higher.rate - lower.rate) / (higher.kappa**2 - lower.kappa**2)
    optimum = linear_vae_optimum(MU, kappa)
    assert optimum.multiplier == pytest.approx(-slope, rel=1e-6)
    assert optimum.relative_multiplier == pytest.approx(optimum.multiplier * kappa**2, rel=1e-12)
    # the equivalent beta of a decoder of unit variance, d / (2 lambda), is the water level
    assert MU.size / (2 * optimum.multiplier) == pytest.approx(optimum.water_level, rel=1e-12)


def test_a_matrix_and_its_eigenvalues_agree() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    from_matrix = linear_vae_optimum(rotation @ np.diag(MU) @ rotation.T, 0.3)
    from_values = linear_vae_optimum(MU[::-1], 0.3)
    assert from_matrix.rate == pytest.approx(from_values.rate, rel=1e-12)
    assert from_matrix.multiplier == pytest.approx(from_values.multiplier, rel=1e-12)


def test_leading_eigenvalues_with_the_number_of_features() -> None:
    padded = linear_vae_optimum(np.concatenate([MU, np.zeros(12)]), 0.1)
    assert linear_vae_optimum(MU, 0.1, n_features=20) == padded


@pytest.mark.parametrize("factor", [1.0, 1.5, 1e6])
def test_nothing_is_encoded_where_the_mean_is_good_enough(factor: float) -> None:
    limit = kappa_for(MU, 1.0)
    optimum = linear_vae_optimum(MU, limit * factor * (1 + 1e-12))
    assert (optimum.rate, optimum.multiplier, optimum.active_dimensions) == (0.0, 0.0, 0)
    assert optimum.relative_multiplier == 0.0
    assert optimum.root_mean_square_error == pytest.approx(limit, rel=1e-12)
    assert optimum.water_level == pytest.approx(4.0, rel=1e-12)


def test_just_inside_the_limit_the_first_direction_switches_on() -> None:
    optimum = linear_vae_optimum(MU, kappa_for(MU, 1 - 1e-9))
    assert optimum.active_dimensions == 1
    assert 0.0 < optimum.rate < 1e-8
    assert optimum.multiplier == pytest.approx(8 / (2 * 4.0), rel=1e-6)


def test_constant_data_need_no_code() -> None:
    optimum = linear_vae_optimum(np.zeros((3, 3)), 0.1)
    assert (optimum.rate, optimum.multiplier, optimum.water_level) == (0.0, 0.0, 0.0)


@settings(deadline=None)
@given(mu=spectra, share=shares, scale=st.sampled_from([1e-300, 1e-30, 1e-3, 7.0, 1e30, 1e280]))
def test_scaling_the_data_changes_only_the_units(
    mu: np.ndarray, share: float, scale: float
) -> None:
    kappa = kappa_for(mu, share)
    plain = linear_vae_optimum(mu, kappa)
    scaled = linear_vae_optimum(mu * scale, kappa * math.sqrt(scale))
    assert scaled.rate == pytest.approx(plain.rate, rel=1e-9, abs=1e-11)
    assert scaled.relative_multiplier == pytest.approx(plain.relative_multiplier, rel=1e-9)
    assert scaled.water_level == pytest.approx(plain.water_level * scale, rel=1e-9)
    assert scaled.multiplier == pytest.approx(plain.multiplier / scale, rel=1e-9)


@settings(deadline=None)
@given(mu=spectra, share=shares)
def test_the_level_fills_exactly_the_allowed_error(mu: np.ndarray, share: float) -> None:
    kappa = kappa_for(mu, share)
    optimum = linear_vae_optimum(mu, kappa)
    assert np.minimum(optimum.water_level, mu).sum() == pytest.approx(mu.size * kappa**2, rel=1e-9)
    # D8: the relative multiplier lies between half the active and half of all dimensions
    relative = optimum.relative_multiplier
    assert optimum.active_dimensions / 2 <= relative * (1 + 1e-9)
    assert relative <= mu.size / 2 * (1 + 1e-9)


@settings(deadline=None)
@given(mu=spectra, pair=st.tuples(shares, shares).map(sorted))
def test_the_rate_falls_and_is_convex_in_the_error(mu: np.ndarray, pair: list[float]) -> None:
    low, high = (linear_vae_optimum(mu, kappa_for(mu, share)) for share in pair)
    middle = linear_vae_optimum(mu, kappa_for(mu, sum(pair) / 2))
    assert high.rate <= low.rate * (1 + 1e-12)
    assert middle.rate <= (low.rate + high.rate) / 2 * (1 + 1e-9) + 1e-12


def test_spectrum_removes_rounding_only() -> None:
    assert covariance_spectrum([1.0, -1e-12])[-1] == 0.0
    with pytest.raises(ValueError, match="positive semidefinite"):
        covariance_spectrum([1.0, -1e-3])


@pytest.mark.parametrize(
    ("covariance", "kappa", "error", "words"),
    [
        (np.ones((2, 3)), 0.1, ValueError, r"square matrix .* got shape \(2, 3\)"),
        (np.ones((0, 0)), 0.1, ValueError, "square matrix"),
        (5.0, 0.1, ValueError, "square matrix"),
        ([[1.0, 0.5], [0.0, 1.0]], 0.1, ValueError, "symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], 0.1, ValueError, "positive semidefinite"),
        ([1.0, np.nan], 0.1, ValueError, "finite"),
        (["a", "b"], 0.1, TypeError, "real numbers"),
        (MU, 0.0, ValueError, "`kappa` must be positive"),
        (MU, -1.0, ValueError, "`kappa` must be positive"),
        (MU, math.nan, ValueError, "`kappa` must be positive"),
        (MU, 1e-200, ValueError, "`kappa` must not be so small"),
        (MU, "0.1", TypeError, "`kappa` must be a positive number"),
        (MU, True, TypeError, "`kappa` must be a positive number"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    covariance: object, kappa: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        linear_vae_optimum(covariance, kappa)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("n_features", "error"), [(3, ValueError), (8.0, TypeError)])
def test_bad_number_of_features(n_features: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="`n_features`"):
        linear_vae_optimum(MU, 0.1, n_features=n_features)  # type: ignore[arg-type]
