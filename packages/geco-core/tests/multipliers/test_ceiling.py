"""The ceiling of the default rule, by hand."""

import math

import pytest

from geco_core.multipliers.arithmetic import NUMBERS
from geco_core.multipliers.ceiling import Sizes, highest_multiplier


def ceiling(violation=0.0, lift=0.0, rests=False, late=0.0, **sizes):
    """The ceiling and its lift of a constraint of 100 elements at a loss of 40."""
    sizes = Sizes(**{"elements": 100.0, "first_loss": 60.0, "loss": 40.0, "unit": 16.0, **sizes})
    return highest_multiplier(NUMBERS, sizes, violation, lift, rests, late)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 75.0),  # 3/4 of the elements at the tolerance
        ({"violation": -0.5}, 75.0),
        ({"violation": 0.1}, 125.0),
        ({"violation": 9.0}, 400.0),
        ({"violation": 9.0, "loss": 2.0}, 100.0),  # and no more than 50 times the loss,
        ({"violation": 9.0, "loss": 0.0}, 10.0),  # which may be 0
        ({"late": 1.0}, 400.0),
        ({"late": 0.5}, 237.5),
        ({"elements": math.nan}, 3000.0),  # without elements the losses tell,
        ({"elements": math.nan, "first_loss": 1.0}, 400.0),
        ({"elements": math.nan, "first_loss": 1.0, "violation": 0.5}, 1200.0),
        ({"elements": 0.0}, 6e6),  # and without a scale there is hardly a ceiling
    ],
)
def test_by_hand(given, expected):
    found, lift = ceiling(**given)
    assert found == pytest.approx(expected, rel=1e-12)
    assert lift == 0.0


def test_it_is_lifted_while_learning_rests_and_comes_down_twice_as_fast():
    found, lift = ceiling(violation=0.1, rests=True, lift=0.1, unit=16.0)
    assert lift == pytest.approx(0.101)
    assert found == pytest.approx(125.0 * math.exp(0.101))
    assert ceiling(violation=-0.1, lift=0.1)[1] == pytest.approx(0.098)
    assert ceiling(violation=0.1, lift=0.1)[1] == pytest.approx(0.1)


def test_the_lift_ends_where_hardly_any_of_the_error_answers():
    found, lift = ceiling(violation=0.1, lift=40.0, rests=True)
    assert found == pytest.approx(16.0 / 0.008)  # the multiplier to which 0.8% answers
    assert lift == pytest.approx(math.log(found / 125.0))
