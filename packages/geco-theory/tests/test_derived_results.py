"""The derived results D1-D9, each checked where it would fail if it were false.

The iteration used here is written out with whole matrices and shares no code with the solvers.
"""

import math

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import minimize
from scipy.special import logsumexp, xlogy
from sklearn.datasets import make_blobs

from geco_theory import (
    DifferentiableError,
    PhaseTransitions,
    advise,
    gaussian_grid,
    linear_vae_optimum,
    rate_distortion_curve,
    solve_latent_grid,
)

Array = np.ndarray
SKEWED = np.random.default_rng(0).exponential(size=(14, 2)) * [2.0, 1.0]
SKEWED_T = np.geomspace(0.3, 8.0, 8)


def posteriors(X: Array, values: Array, log_mass: Array, T: float) -> tuple[Array, float]:
    """Eq. (3) on tiles, and the free energy."""
    logits = log_mass - ((X[:, None] - values[None]) ** 2).sum(axis=2) / (2 * T)
    log_z = logsumexp(logits, axis=1, keepdims=True)
    return np.exp(logits - log_z), -T * float(log_z.mean())


def update(X: Array, values: Array, log_mass: Array, T: float) -> Array:
    """Eqs. (3) and (4)."""
    logits = log_mass - ((X[:, None] - values[None]) ** 2).sum(axis=2) / (2 * T)
    logits -= logsumexp(logits, axis=1, keepdims=True)
    return np.exp(logits - logsumexp(logits, axis=0)).T @ X


def iterate(X: Array, values: Array, log_mass: Array, T: float, steps: int) -> Array:
    for _ in range(steps):
        values = update(X, values, log_mass, T)
    return values


@pytest.fixture(scope="module")
def skewed() -> PhaseTransitions:
    return PhaseTransitions(temperatures=SKEWED_T).fit(SKEWED)


# ---------------------------------------------------------------- D1: one parameter


def with_tolerance(kappa: float) -> DifferentiableError:
    """RE with its tolerance left in."""
    return DifferentiableError(
        lambda X, g: ((X[:, None] - g[None]) ** 2).mean(axis=2) - kappa**2,
        lambda X, g, w: 2 / X.shape[1] * (w.sum(axis=0)[:, None] * g - w.T @ X),
        steps=60,
    )


def test_d1_the_tolerance_cancels_and_only_the_temperature_matters() -> None:
    grid = gaussian_grid(9, dimensions=1)
    start = grid.nodes @ np.array([[2.0, 1.0]])

    def solve(beta: float, sigma: float, kappa: float | None) -> Array:
        multiplier = SKEWED.shape[1] / (2 * beta * sigma**2)
        error = None if kappa is None else with_tolerance(kappa)
        found = solve_latent_grid(
            SKEWED, grid, multiplier=multiplier, error=error, start=start, jitter=0, tol=1e-7
        )
        assert found.converged
        return np.asarray(found.decoder.values)

    reference = solve(2.0, 0.5, None)
    for other in (solve(2.0, 0.5, 0.1), solve(2.0, 0.5, 0.7), solve(0.5, 1.0, None)):
        np.testing.assert_allclose(other, reference, atol=1e-5)
    assert np.abs(solve(0.25, 1.0, None) - reference).max() > 1e-2


# ------------------------------------------------------- D2: the constant solution


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("T", [0.3, 2.0, 9.0])
def test_d2_a_perturbation_of_the_constant_grows_by_eigenvalue_over_temperature(
    direction: int, T: float
) -> None:
    values, axes = np.linalg.eigh(np.cov(SKEWED.T, bias=True))
    mass = np.array([0.5, 0.2, 0.3])
    centre = SKEWED.mean(axis=0)
    constant = np.tile(centre, (3, 1))
    np.testing.assert_allclose(update(SKEWED, constant, np.log(mass), T), constant, atol=1e-12)
    pattern = np.array([1.0, -1.0, -1.0])
    assert mass @ pattern == pytest.approx(0.0, abs=1e-15)
    moved = constant + 1e-6 * np.outer(pattern, axes[:, direction])
    grown = (update(SKEWED, moved, np.log(mass), T) - constant) / 1e-6
    np.testing.assert_allclose(
        grown, values[direction] / T * np.outer(pattern, axes[:, direction]), atol=1e-4
    )


def test_d2_stability_ends_at_the_top_eigenvalue_and_optimality_above_it(
    skewed: PhaseTransitions,
) -> None:
    top = float(np.linalg.eigvalsh(np.cov(SKEWED.T, bias=True))[-1])
    assert skewed.stability_temperature_ == pytest.approx(top, rel=1e-9)
    assert skewed.critical_temperatures_[0] > 1.02 * top
    # two symmetric points: the two temperatures coincide
    pair = PhaseTransitions(temperatures=[0.5, 50.0]).fit([[-1.0], [1.0]])
    assert pair.critical_temperatures_[0] == pytest.approx(1.0, rel=1e-6)


def test_d2_error_and_rate_have_a_kink_and_no_jump(skewed: PhaseTransitions) -> None:
    critical = float(skewed.critical_temperatures_[0])
    near = critical * (1 - np.array([1e-2, 1e-3]))
    path = PhaseTransitions(temperatures=np.sort(near)).fit(SKEWED).path_
    total = SKEWED.var(axis=0).sum()
    lost = 1 - path.distortion.values / total
    assert 0 < lost[1] < 0.2 * lost[0] < 0.02
    assert 0 < path.rate.values[1] < 0.2 * path.rate.values[0]


# --------------------------------------------------------- D3: every later transition


def test_d3_a_group_splits_at_the_top_eigenvalue_of_its_own_covariance() -> None:
    T = 0.6
    log_mass = np.log([0.3, 0.1, 0.6])
    start = np.array([[0.5, 0.5], [0.5, 0.5], [4.0, 1.0]])
    values = start
    for _ in range(1000):
        values = update(SKEWED, values, log_mass, T)
        values[1] = values[0]  # rounding would part an unstable group
    np.testing.assert_allclose(update(SKEWED, values, log_mass, T), values, atol=1e-12)
    assert np.linalg.norm(values[0] - values[2]) > 1
    weights = posteriors(SKEWED, values, log_mass, T)[0][:, 0]
    weights /= weights.sum()
    centred = SKEWED - values[0]
    spread, axes = np.linalg.eigh((weights[:, None] * centred).T @ centred)
    for size, axis in zip(spread, axes.T, strict=True):
        # moves that keep the group's mean: the group splits or closes, the rest stays
        moved = values.copy()
        moved[0] += 1e-6 * 0.1 * axis
        moved[1] -= 1e-6 * 0.3 * axis
        grown = (update(SKEWED, moved, log_mass, T) - values) / 1e-6
        np.testing.assert_allclose(grown[0] - grown[1], 0.4 * size / T * axis, atol=1e-5)


def test_d3_equal_masses_split_continuously_and_unequal_ones_with_a_jump() -> None:
    x, weight = np.array([-0.2, 0.8]), np.array([0.8, 0.2])  # skewed, centred
    top = float(weight @ x**2)

    def gap(masses: list[float], T: float) -> float:
        values, mass = np.array([0.5, -0.2]), np.array(masses)
        for _ in range(4000):
            q = mass * np.exp(-((x[:, None] - values) ** 2) / (2 * T))
            q *= (weight / q.sum(axis=1))[:, None]
            values = x @ q / q.sum(axis=0)
        return float(abs(values[0] - values[1]))

    assert gap([0.5, 0.5], 1.01 * top) < 1e-6
    assert 1e-2 < gap([0.5, 0.5], 0.99 * top) < 0.5 * gap([0.5, 0.5], 0.9 * top)
    assert gap([0.2, 0.8], 1.03 * top) > 0.2  # still split above the eigenvalue: hysteresis


def test_d3_no_value_of_the_global_optimum_could_split(skewed: PhaseTransitions) -> None:
    for T in SKEWED_T:
        found = skewed.decoder_values(T)
        values, mass = found.value.values, found.mass.values
        q = posteriors(SKEWED, values, np.log(mass), T)[0]
        for a in range(len(mass)):
            w = q[:, a] / q[:, a].sum()
            centred = SKEWED - w @ SKEWED
            top = np.linalg.eigvalsh((w[:, None] * centred).T @ centred)[-1]
            assert top <= T * (1 + 1e-4)


# ------------------------------------------------------------------- D4: tiles


def test_d4_cold_posteriors_are_the_prior_on_their_own_tiles() -> None:
    grid = gaussian_grid(15)
    found = solve_latent_grid(SKEWED, grid, temperature=1e-4)
    q, _ = posteriors(SKEWED, found.decoder.values, grid.log_mass, 1e-4)
    prior = np.exp(grid.log_mass)
    owner = q.argmax(axis=0)
    np.testing.assert_allclose(found.decoder.values, SKEWED[owner], atol=1e-8)
    tiles = np.array([prior[owner == i].sum() for i in range(len(SKEWED))])
    assert (tiles > 0).all()
    for i, tile in enumerate(tiles):
        np.testing.assert_allclose(q[i], np.where(owner == i, prior / tile, 0.0), atol=1e-10)
    mean_kl = float(-np.log(tiles).mean())
    assert float(found.rate) == pytest.approx(mean_kl, rel=1e-9)
    marginal = q.mean(axis=0)
    excess = float(xlogy(marginal, marginal / prior).sum())
    assert mean_kl == pytest.approx(math.log(len(SKEWED)) + excess, rel=1e-9)
    assert excess > 1e-3


def test_d4_tiles_of_equal_mass_cost_ln_n() -> None:
    X = SKEWED[:7]
    start = X + 0.01
    values = iterate(X, start, np.full(7, -math.log(7)), 1e-4, 5)
    q, _ = posteriors(X, values, np.full(7, -math.log(7)), 1e-4)
    rate = float(xlogy(q, 7 * q).sum(axis=1).mean())
    assert rate == pytest.approx(math.log(7), abs=1e-12)


def test_d4_a_start_is_locked_in_after_three_iterations() -> None:
    values = np.random.default_rng(1).normal(size=(40, 2)) * 2
    owners = []
    for _ in range(12):
        values = update(SKEWED, values, np.full(40, -math.log(40)), 1e-4)
        owners.append(((values[:, None] - SKEWED[None]) ** 2).sum(axis=2).argmin(axis=1))
    for later in owners[3:]:
        np.testing.assert_array_equal(later, owners[2])


# --------------------------------------------------------------- D5: the staircase


def test_d5_separate_groups_share_one_value_and_cost_ln_k() -> None:
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    X, groups = make_blobs(32, centers=centres, cluster_std=0.3, random_state=0)
    path = PhaseTransitions(temperatures=[0.5, 1.0, 2.0]).fit(X).path_
    within = sum(X[groups == g].var(axis=0).sum() for g in range(4)) / 4
    np.testing.assert_array_equal(path.n_clusters, 4)
    np.testing.assert_allclose(path.rate, math.log(4), atol=1e-4)
    np.testing.assert_allclose(path.distortion, within, rtol=1e-3)


# ----------------------------------------------------------- D6: rate and distortion


def test_d6_the_mean_kl_is_the_information_plus_the_marginal_kl() -> None:
    rng = np.random.default_rng(2)
    q = rng.dirichlet(np.full(9, 0.5), size=14)
    prior = rng.dirichlet(np.ones(9))
    marginal = q.mean(axis=0)
    mean_kl = xlogy(q, q / prior).sum(axis=1).mean()
    information = xlogy(q, q / marginal).sum(axis=1).mean()
    marginal_kl = xlogy(marginal, marginal / prior).sum()
    assert mean_kl == pytest.approx(information + marginal_kl, rel=1e-12)
    assert marginal_kl > 0.01


def test_d6_the_slope_of_the_optimum_is_the_multiplier() -> None:
    for T in (0.6, 2.5):
        path = PhaseTransitions(temperatures=[T * 0.998, T * 1.002], tolerance=1e-9)
        found = path.fit(SKEWED).path_
        slope = np.diff(found.rate) / np.diff(found.distortion)
        assert slope[0] == pytest.approx(-1 / (2 * T), rel=2e-3)


def test_d6_with_optimised_masses_the_iteration_is_blahut_arimoto(
    skewed: PhaseTransitions,
) -> None:
    T = float(SKEWED_T[4])
    best = float(skewed.path_.free_energy[4])
    values, mass = SKEWED.copy(), np.full(14, 1 / 14)
    energies = []
    for _ in range(1500):
        q, energy = posteriors(SKEWED, values, np.log(np.maximum(mass, 1e-300)), T)
        energies.append(energy)
        mass = q.mean(axis=0)
        values = (q / np.maximum(q.sum(axis=0), 1e-300)).T @ SKEWED
    assert np.diff(energies).max() <= 1e-12
    assert 0 <= energies[-1] - best + 1e-6 < 2e-3
    # at the optimum the masses are the marginal posterior: no marginal KL is left
    found = skewed.decoder_values(T)
    q, _ = posteriors(SKEWED, found.value.values, np.log(found.mass.values), T)
    np.testing.assert_allclose(q.mean(axis=0), found.mass, atol=1e-5)


# ------------------------------------------------- D7, D8: the linear-Gaussian optimum

MU = np.array([3.0, 1.0, 0.3])


def linear_vae(parameters: Array) -> tuple[float, float]:
    """RE (summed) and KL of a linear VAE on data with covariance diag(MU)."""
    encoder, decoder = parameters[:18].reshape(2, 3, 3)
    log_variance = parameters[18:]
    variance = np.exp(log_variance)
    missing = np.eye(3) - decoder @ encoder
    error = np.trace(missing * MU @ missing.T) + (variance * (decoder**2).sum(axis=0)).sum()
    means = np.einsum("ij,j,ij->i", encoder, MU, encoder)
    return float(error), 0.5 * float((variance + means - 1 - log_variance).sum())


@pytest.mark.parametrize("kappa", [0.25, 0.6, 0.9])
def test_d7_no_linear_vae_does_better_and_one_attains_it(kappa: float) -> None:
    optimum = linear_vae_optimum(MU, kappa)

    def lagrangian(parameters: Array) -> float:
        error, rate = linear_vae(parameters)
        return rate + optimum.multiplier * error / 3

    rng = np.random.default_rng(3)
    found = min(
        (
            minimize(lagrangian, rng.normal(size=21) * 0.5, method="BFGS", options={"gtol": 1e-7})
            for _ in range(3)
        ),
        key=lambda result: float(result.fun),
    )
    assert found.fun == pytest.approx(optimum.rate + optimum.multiplier * kappa**2, rel=1e-7)
    error, rate = linear_vae(found.x)
    assert error / 3 == pytest.approx(kappa**2, rel=1e-3)
    assert rate == pytest.approx(optimum.rate, rel=1e-3)


def test_d7_is_an_upper_bound_for_data_that_are_not_gaussian(skewed: PhaseTransitions) -> None:
    table = advise(SKEWED, analysis=skewed)
    assert (table.smallest_rate <= table.linear_rate + 1e-9).all()
    assert float((table.linear_rate - table.smallest_rate).max()) > 0.1


@pytest.mark.parametrize("active", [1, 3, 6])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_d8_the_relative_multiplier_is_half_the_active_dimensions(
    active: int, scale: float
) -> None:
    mu = np.concatenate([np.linspace(50, 100, active), np.full(20, 1e-3)]) * scale
    kappa = math.sqrt((active * 5.0 + 20 * 1e-3) * scale / mu.size)
    optimum = linear_vae_optimum(mu, kappa)
    assert optimum.active_dimensions == active
    assert optimum.relative_multiplier == pytest.approx(active / 2, rel=0.01)


# ------------------------------------------------------------ D9: the global optimum

LINE = np.array([-2.0, -1.7, -0.4, 0.1, 0.3, 1.9, 2.6, 2.8])[:, None]
FINE = np.linspace(-4, 5, 20_001)[:, None]


def height(values: Array, mass: Array, T: float) -> tuple[float, float]:
    """F(nu) and ln S on a fine grid over the line."""
    log_kernel = -((LINE - values.T) ** 2) / (2 * T)
    log_z = logsumexp(log_kernel + np.log(mass), axis=1)
    log_d = logsumexp(-((LINE - FINE.T) ** 2) / (2 * T) - log_z[:, None], axis=0) - math.log(8)
    return -T * float(log_z.mean()), float(log_d.max())


@pytest.fixture(scope="module")
def line() -> PhaseTransitions:
    return PhaseTransitions(temperatures=np.geomspace(0.05, 4.0, 8)).fit(LINE)


def test_d9_the_optimum_carries_its_certificate_with_at_most_n_values(
    line: PhaseTransitions,
) -> None:
    for i, T in enumerate(line.path_.temperature.values):
        found = line.decoder_values(T)
        energy, log_s = height(found.value.values, found.mass.values, T)
        assert log_s <= 2e-6
        assert energy == pytest.approx(float(line.path_.free_energy[i]), rel=1e-9)
        assert found.sizes["cluster"] <= len(LINE)


def test_d9_the_certificate_bounds_the_gap_of_every_candidate(line: PhaseTransitions) -> None:
    rng = np.random.default_rng(4)
    for i in (1, 3, 6):
        T = float(line.path_.temperature[i])
        best = float(line.path_.free_energy[i])
        for size in (1, 2, 5, 20):
            values = rng.uniform(-3, 4, size=(size, 1))
            energy, log_s = height(values, rng.dirichlet(np.ones(size)), T)
            assert -1e-7 <= energy - best <= T * log_s
            assert log_s > 1e-4


def test_d9_the_free_energy_is_convex_in_the_distribution() -> None:
    rng = np.random.default_rng(5)
    for T in (0.1, 1.0):
        values = rng.uniform(-3, 4, size=(6, 1))
        one, two = rng.dirichlet(np.full(6, 0.3), size=2)
        for share in (0.2, 0.5, 0.8):
            mixed = height(values, share * one + (1 - share) * two, T)[0]
            chord = share * height(values, one, T)[0] + (1 - share) * height(values, two, T)[0]
            assert mixed < chord


def test_d9_every_model_lies_above_the_bound(line: PhaseTransitions) -> None:
    """Models of every kind: any posteriors, any decoder, any prior."""
    rng = np.random.default_rng(6)
    heat, best = line.path_.temperature.values, line.path_.free_energy.values
    closest = np.inf
    for _ in range(300):
        cells = int(rng.integers(1, 30))
        prior = rng.dirichlet(np.ones(cells))
        decoder = rng.uniform(-3, 3.5, size=(cells, 1))
        sharp = rng.uniform(0.0, 20.0)
        logits = np.log(prior) - sharp * (LINE - decoder.T) ** 2 + rng.normal(size=(8, cells)) / 5
        q = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        error = (q * (LINE - decoder.T) ** 2).sum(axis=1).mean()
        rate = xlogy(q, q / prior).sum(axis=1).mean()
        margin = error / 2 + heat * rate - best
        assert (margin >= -1e-9).all()
        closest = min(closest, float(margin.min()))
    assert closest < 0.1  # the models come near enough for the test to mean something


def test_d9_one_value_is_optimal_exactly_above_the_critical_temperature(
    line: PhaseTransitions,
) -> None:
    centred = LINE - LINE.mean()
    y = FINE[np.abs(FINE[:, 0]) > 1e-2]

    def condition(T: float) -> float:
        inner = (centred @ y.T - (y**2).sum(axis=1) / 2) / T
        return float((logsumexp(inner, axis=0) - math.log(8)).max())

    critical = float(line.critical_temperatures_[0])
    assert condition(critical * 1.002) < 0
    assert condition(critical * 0.998) > 0
    assert line.n_clusters(critical * 1.002) == 1
    assert line.n_clusters(critical * 0.998) > 1


def test_d9_the_rate_follows_from_the_free_energy(line: PhaseTransitions) -> None:
    path: xr.Dataset = line.path_
    np.testing.assert_allclose(
        path.rate, (path.free_energy - path.distortion / 2) / path.temperature, atol=1e-9
    )
    curve = rate_distortion_curve(path, n_features=1)
    assert (np.diff(curve.rate) <= 1e-12).all()
