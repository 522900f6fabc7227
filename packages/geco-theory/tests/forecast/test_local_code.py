import numpy as np
import pytest
from scipy.stats import ortho_group

from geco_theory.forecast.local_code import Candidates, LocalMixture


@pytest.fixture
def mixture() -> LocalMixture:
    rng = np.random.default_rng(0)
    axes = np.stack([ortho_group.rvs(3, random_state=seed) for seed in (1, 2)])
    return LocalMixture(
        masses=np.array([0.3, 0.7]),
        means=np.asarray(rng.normal(size=(2, 3)) * 6, np.float32),
        variances=np.array([[4.0, 1.0, 0.2], [2.0, 0.5, 0.1]]),
        axes=np.asarray(axes, np.float32),
        rest=0.6,
        dropped=2,
    )


@pytest.mark.parametrize("level", [0.05, 0.3, 0.7, 5.0])
def test_rate_and_error_are_those_of_a_simulated_encoder_and_decoder(
    mixture: LocalMixture, level: float
) -> None:
    rng = np.random.default_rng(1)
    # no Gaussian: five features, two of which are cut off
    images = rng.uniform(-8, 8, size=(6, 5))
    squares = np.square(images[:, 3:]).sum(axis=1)
    code = Candidates(mixture, images[:, :3].astype(np.float32), squares).at(level)
    draws = 200_000
    for i, c in enumerate(code.component):
        own = (images[i, :3] - mixture.means[c]) @ mixture.axes[c]
        y = np.concatenate([own, images[i, 3:]])
        variances = np.concatenate([mixture.variances[c], np.full(2, mixture.rest)])
        decoded = np.zeros((draws, 5))
        rate = -np.log(mixture.masses[c])
        for j in np.flatnonzero(variances > level):
            spread = level / variances[j]
            slope = np.sqrt((1 - spread) / variances[j])
            z = rng.normal(slope * y[j], np.sqrt(spread), draws)
            log_q = -np.square(z - slope * y[j]) / (2 * spread) - 0.5 * np.log(spread)
            rate += np.mean(log_q + np.square(z) / 2)
            decoded[:, j] = variances[j] * slope * z
        error = np.square(decoded - y).sum(axis=1)
        assert code.latents[i] == np.sum(variances > level)
        assert code.rate[i] == pytest.approx(rate, abs=0.05, rel=5e-3)
        assert code.error[i] == pytest.approx(
            error.mean(), abs=6 * error.std() / draws**0.5, rel=1e-5
        )


def test_the_component_taken_costs_the_least(mixture: LocalMixture) -> None:
    rng = np.random.default_rng(2)
    rows = np.asarray(rng.normal(size=(50, 3)) * 5, np.float32)
    level = 0.4
    both = Candidates(mixture, rows, np.zeros(50)).at(level)
    for c in (0, 1):
        one = LocalMixture(
            mixture.masses[[c]],
            mixture.means[[c]],
            mixture.variances[[c]],
            mixture.axes[[c]],
            mixture.rest,
            mixture.dropped,
        )
        alone = Candidates(one, rows, np.zeros(50)).at(level)
        assert (
            0.5 * both.error + level * both.rate <= 0.5 * alone.error + level * alone.rate + 1e-4
        ).all()


def test_the_error_grows_with_the_level_and_the_rate_falls(mixture: LocalMixture) -> None:
    rows = np.asarray(np.random.default_rng(3).normal(size=(200, 3)) * 4, np.float32)
    candidates = Candidates(mixture, rows, np.ones(200))
    codes = [candidates.at(level) for level in np.geomspace(0.01, 10, 20)]
    assert (np.diff([c.error.mean() for c in codes]) >= -1e-6).all()
    assert (np.diff([c.rate.mean() for c in codes]) <= 1e-6).all()
