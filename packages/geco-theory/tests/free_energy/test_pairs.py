from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_theory.free_energy import blahut_arimoto, pairs
from geco_theory.free_energy.blahut_arimoto import log_joint, moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle import mean_shift
from geco_theory.npmle.mean_shift import Landscape


@given(st.integers(0, 1000), st.floats(-3, 1))
@settings(max_examples=20, deadline=None)
def test_differences_and_expanded_squares_say_the_same(seed: int, power: float) -> None:
    rng = np.random.default_rng(seed)
    data = StandardData.from_samples(rng.normal(size=(40, 3)))
    mixture = Mixture(data.rows[:7], rng.dirichlet(np.ones(7)))
    T = 10.0**power
    with pytest.MonkeyPatch.context() as patch:
        expanded = moments(data, mixture, T)
        step = Landscape(data, expanded.log_z, T).step(data.rows)
        joint = log_joint(data.rows, mixture, T)
        for module in (blahut_arimoto, mean_shift):
            patch.setattr(module, "expansion_holds", lambda *_: False)
        exact = moments(data, mixture, T)
        exact_step = Landscape(data, expanded.log_z, T).step(data.rows)
        np.testing.assert_allclose(log_joint(data.rows, mixture, T), joint, rtol=1e-11, atol=1e-11)
    for name in ("log_z", "mass", "means", "free_energy", "distortion", "rate"):
        np.testing.assert_allclose(
            getattr(exact, name), getattr(expanded, name), rtol=1e-9, atol=1e-11, err_msg=name
        )
    np.testing.assert_allclose(exact_step[0], step[0], atol=1e-10)
    np.testing.assert_allclose(exact_step[1], step[1], atol=1e-9)


def test_the_bound_on_rounding_covers_what_expansion_loses() -> None:
    rng = np.random.default_rng(0)
    data = StandardData.from_samples(rng.normal(size=(200, 5)))
    mixture = Mixture(data.rows[:9], np.full(9, 1 / 9))
    for T in 10.0 ** np.arange(-4.0, 1.0):
        lost = np.abs(
            log_joint(data.rows, mixture, T)
            - (np.log(mixture.masses) - pairs.exponents(data.rows, mixture.values, T))
        ).max()
        assert lost <= moments(data, mixture, T).rounding


def test_at_no_temperature_every_sample_costs_ln_n() -> None:
    rows = np.random.default_rng(1).normal(size=(30, 4))
    data = StandardData.from_samples(rows)
    own = Mixture(data.rows, data.weights)
    for T in (1e-30, 1e-60):
        state = moments(data, own, T)
        assert state.rate == pytest.approx(np.log(30), rel=1e-12)
        assert state.distortion == 0.0
        np.testing.assert_array_equal(state.means, data.rows)


def test_group_means_lie_in_the_hull_and_begin_with_the_mean() -> None:
    data = StandardData.from_samples(np.random.default_rng(2).normal(size=(50, 3)))
    means = data.group_means
    np.testing.assert_array_equal(means[0], 0.0)
    assert len(means) > 50
    assert np.square(means).sum(axis=1).max() <= data.largest_square
    again = replace(data, rows=data.rows.copy()).group_means
    np.testing.assert_array_equal(means, again)


def test_two_far_groups_are_among_the_groups() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(40, 6))
    X[:15] += 30.0
    data = StandardData.from_samples(X)
    wanted = data.to_standard(np.stack([X[:15].mean(axis=0), X[15:].mean(axis=0)]))
    gaps = np.linalg.norm(data.group_means[:, None] - wanted[None], axis=2)
    assert gaps.min(axis=0).max() < 1e-10
