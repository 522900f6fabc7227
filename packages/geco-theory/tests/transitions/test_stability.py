import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import logsumexp
from sklearn.datasets import load_digits

from geco_theory.free_energy.data import StandardData
from geco_theory.transitions.stability import one_value_limit, stability_temperature


def test_digits_600_end_where_measured() -> None:
    data = StandardData.from_samples(load_digits().data[:600] / 16)
    found = one_value_limit(data, data.rows)
    assert found.temperature * data.temperature_unit == pytest.approx(0.8336477, rel=1e-6)
    assert np.linalg.norm(found.birth) * data.scale == pytest.approx(1.871, rel=1e-3)
    assert not found.continuous


def test_a_symmetric_pair_splits_continuously() -> None:
    data = StandardData.from_samples(np.array([[-1.0], [1.0]]))
    found = one_value_limit(data, data.rows)
    assert found.continuous
    assert found.temperature == stability_temperature(data) == pytest.approx(1.0)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(3, 12))
def test_on_a_line_it_is_the_root_of_the_condition(seed: int, n: int) -> None:
    x = np.random.default_rng(seed).exponential(size=(n, 1))
    data = StandardData.from_samples(x)
    found = one_value_limit(data, data.rows)
    assert found.temperature >= stability_temperature(data)
    y = np.linspace(-8, 8, 20_001)
    y = y[np.abs(y) > 1e-3]

    def supremum(temperature: float) -> float:
        u = data.rows * y - y**2 / 2
        return float(logsumexp(u / temperature, axis=0, b=1 / n).max())

    low = stability_temperature(data)
    expected = brentq(supremum, low, 10 * low) if supremum(low) > 0 else low
    assert found.temperature == pytest.approx(expected, rel=1e-5)
