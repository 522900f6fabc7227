"""Facts as tensors: what goes in comes out, whatever savers do with it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geco_core.text_state import facts_of, tensor_of


@given(
    st.dictionaries(st.text(max_size=5).filter(lambda key: key != "numbers"), st.text(max_size=9)),
    st.floats(1e-20, 1e30) | st.floats(-1e30, -1e-20),
)
def test_there_and_back(facts, number):
    state = tensor_of(facts, kappa=number)
    assert state.dtype == torch.float32
    found = facts_of(state)
    assert found.pop("kappa") == number
    assert found == {key: value for key, value in facts.items() if key != "kappa"}


def test_averages_and_half_precision():
    facts, state = {"kind": "Größe", "rows": ["a", "b"]}, None
    state = tensor_of(facts, kappa=0.1)
    averaged = 0.999 * state + 0.001 * tensor_of(facts, kappa=0.3)
    found = facts_of(averaged)
    assert found["kind"] == "Größe"
    assert found["kappa"] == pytest.approx(0.1002, rel=1e-5)
    for half in (torch.float16, torch.bfloat16):
        found = facts_of(state.to(half))
        assert found["rows"] == ["a", "b"]
        assert found["kappa"] == pytest.approx(0.1, rel=1e-2)


def test_something_else_is_nothing():
    wrong = (None, 0.1, torch.zeros(3), torch.ones(2, 2), torch.full((5,), math.nan), "text")
    for state in wrong:
        assert facts_of(state) is None
    assert facts_of({"kind": "old"}) == {"kind": "old"}
