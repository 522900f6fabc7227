import numpy as np
import pytest

from geco_theory.free_energy.mixture import Mixture, merge_coincident


def test_merging_keeps_the_mean_and_the_mass() -> None:
    rng = np.random.default_rng(3)
    mixture = Mixture(
        np.concatenate([rng.normal(size=(5, 3)), rng.normal(size=(1, 3)) + 1e-5 * np.eye(3)]),
        rng.dirichlet(np.ones(8)),
    )
    merged = merge_coincident(mixture, 1e-3)
    assert merged.size == 6
    assert merged.masses.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(merged.masses @ merged.values, mixture.masses @ mixture.values)
    assert merge_coincident(mixture, 1e-9) is mixture
