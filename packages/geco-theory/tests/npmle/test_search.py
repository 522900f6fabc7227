from collections import Counter

import numpy as np
import pytest

from geco_theory.free_energy.blahut_arimoto import moments
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle import search
from geco_theory.npmle.certificate import ascend
from geco_theory.npmle.search import Search
from geco_theory.npmle.solver import solve_free


def some() -> StandardData:
    rng = np.random.default_rng(0)
    centres = 4.0 * rng.normal(size=(6, 5))
    return StandardData.from_samples(
        centres[rng.integers(6, size=400)] + rng.normal(size=(400, 5))
    )


def test_the_whole_search_finds_what_climbs_from_all_data_find() -> None:
    data, temperature = some(), 0.05
    one = Mixture(np.zeros((1, 5)), np.ones(1))
    state = moments(data, one, temperature)
    everything = ascend(data, state.log_z, temperature, data.rows, known=one.values)
    found = Search(data, temperature, False, Counter()).whole(state, one, 1e-6)
    assert found.log_supremum == pytest.approx(everything.log_supremum, abs=1e-5)


def test_a_second_search_begins_at_the_maxima_of_the_first_while_z_hardly_falls() -> None:
    data, temperature = some(), 0.05
    one = Mixture(np.zeros((1, 5)), np.ones(1))
    exact = solve_free(data, temperature, one, tolerance=1e-10).mixture
    work: Counter[str] = Counter()
    looked = Search(data, temperature, False, work)
    looked.whole(moments(data, exact, temperature), exact, 1e-8)
    shaken = Mixture(exact.values, exact.masses * (1 + 0.02 * np.cos(np.arange(exact.size))))
    state = moments(data, shaken.normalised(), temperature)
    again = looked.whole(state, shaken.normalised(), 1e-8)
    assert work["from the whole sample"] == 1
    everything = ascend(
        data, state.log_z, temperature, data.rows, known=shaken.values, climb_known=True
    )
    assert again.log_supremum == pytest.approx(everything.log_supremum, abs=1e-6)
    # far from the first solution it begins from the sample again
    looked.whole(moments(data, one, temperature), one, 1e-8)
    assert work["from the whole sample"] == 2


def test_no_birth_of_a_round_lies_beside_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    data, temperature = some(), 0.05
    monkeypatch.setattr(search, "_PLENTY", 0)
    values = Mixture(data.rows[:2].copy(), np.full(2, 0.5))
    found = Search(data, temperature, True, Counter()).some(
        moments(data, values, temperature), values, 1e-3
    )
    assert found.log_supremum > 0.1
    gaps = np.linalg.norm(found.points[:, None] - values.values, axis=2).min(axis=1)
    assert (gaps > 0.05 * np.sqrt(temperature)).all()
