"""The functions of formulas mean the same for numbers and for tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_core.multipliers.arithmetic import NUMBERS, TENSORS

edges = [0.0, -0.0, 1.0, -1.0, 800.0, -800.0, 1e300, math.inf, -math.inf, math.nan]
values = st.sampled_from(edges) | st.floats(-50, 50)


def same(number, tensor):
    # not the sign of 0
    expected = torch.tensor(number, dtype=tensor.dtype)
    torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-300, equal_nan=True)


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "asinh", "tanh", "abs", "isfinite"])
@settings(deadline=None)
@given(values)
def test_of_one(name, value):
    tensor = torch.tensor(value, dtype=torch.float64)
    same(getattr(NUMBERS, name)(value), getattr(TENSORS, name)(tensor))


@pytest.mark.parametrize("name", ["minimum", "maximum", "divide"])
@settings(deadline=None)
@given(values, values)
def test_of_two(name, one, two):
    a, b = (torch.tensor(value, dtype=torch.float64) for value in (one, two))
    expected = getattr(NUMBERS, name)(one, two)
    same(expected, getattr(TENSORS, name)(a, b))
    if not (math.isnan(one) or math.isnan(two)):
        same(expected, getattr(TENSORS, name)(a, two))
        same(expected, getattr(TENSORS, name)(one, b))


@settings(deadline=None)
@given(values, st.floats(-5, 0), st.floats(0, 5))
def test_of_three(value, low, high):
    tensor = torch.tensor(value, dtype=torch.float64)
    expected = NUMBERS.clip(value, low, high)
    same(expected, TENSORS.clip(tensor, low, high))
    same(expected, TENSORS.clip(tensor, torch.tensor(low, dtype=torch.float64), high))
    for condition in (True, False):
        expected = NUMBERS.where(condition, value, low)
        same(expected, TENSORS.where(torch.tensor(condition), tensor, low))
