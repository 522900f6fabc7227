import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_experiments.training.history import FIELDS, LIMIT, History, record_steps


@settings(deadline=None)
@given(st.integers(1, 10**8))
def test_first_and_last_are_kept_and_the_number_is_bounded(steps):
    recorded = record_steps(steps)
    assert recorded[0] == 1
    assert recorded[-1] == steps
    assert (np.diff(recorded) > 0).all()
    assert len(recorded) == steps if steps <= LIMIT else LIMIT / 2 < len(recorded) <= LIMIT


def test_long_runs_keep_the_start_dense_and_no_gap_wide():
    recorded = record_steps(1_000_000)
    assert set(range(1, 25)) <= set(recorded.tolist())
    assert np.diff(recorded).max() <= 1_000_000 / (LIMIT // 2 - 1) + 1


def test_records_and_reload():
    history = History(3, torch.device("cpu"), draw_steps=2)
    values = [torch.tensor(float(i)) for i in range(len(FIELDS))]
    history.record(history.row(2), [None, *values[1:]], torch.tensor([3.0, 4.0]))
    assert math.isnan(history.values[1, 0])
    assert history.values[1, 1:].tolist() == [float(i) for i in range(1, len(FIELDS))]
    assert history.values[0].isnan().all()
    again = History(3, torch.device("cpu"), draw_steps=2)
    again.load(history.values, history.draw_values)
    assert torch.equal(again.values.nan_to_num(-1), history.values.nan_to_num(-1))
    assert again.draw_values[1].tolist() == [3.0, 4.0]
    with pytest.raises(ValueError, match="the history has shape"):
        History(4, torch.device("cpu")).load(history.values, None)
