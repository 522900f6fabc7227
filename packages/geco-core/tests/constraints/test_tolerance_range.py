"""Ranges of tolerances: their ends, places and knots."""

import copy
import io
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geco_core import (
    ClassificationAccuracy,
    Equality,
    FeatureReconstructionError,
    PatchCrossCorrelation,
    PerGroup,
    ReconstructionError,
    ToleranceConstraint,
    ToleranceRange,
)
from geco_core.constraints.tolerance_range import hats, interpolated, tightest_met
from geco_core.text_state import facts_of

CONSTRAINTS = {
    "squares": lambda kappa: ReconstructionError(kappa),
    "features": lambda kappa: FeatureReconstructionError(kappa, lambda x: x),
    "classes": lambda kappa: ClassificationAccuracy(kappa, lambda x: x[:, :3]),
    "patches": lambda kappa: PatchCrossCorrelation(kappa, 4),
}


@pytest.mark.parametrize("ends", [(0.2, 0.1), (0.1, 0.1), (0, 0.1), (-1, 1)])
def test_ends_must_be_positive_and_in_order(ends):
    with pytest.raises(ValueError, match=r"\(low, high\) with 0 < low < high, got"):
        ToleranceRange(*ends)


@pytest.mark.parametrize("ends", [(math.nan, 1), (0.1, math.inf)])
def test_ends_must_be_finite(ends):
    with pytest.raises(ValueError, match="must be finite"):
        ToleranceRange(*ends)


@pytest.mark.parametrize("ends", [("a", 1), (0.1, None), (True, 2), (torch.tensor(0.1), 1)])
def test_ends_must_be_numbers(ends):
    with pytest.raises(TypeError, match="must be a number"):
        ToleranceRange(*ends)


def test_probabilities_end_below_1():
    with pytest.raises(ValueError, match=r"between 0 and 1 \(excluded\), got 1"):
        PatchCrossCorrelation(ToleranceRange(0.5, 1.0))


@pytest.mark.parametrize("make", CONSTRAINTS.values(), ids=CONSTRAINTS)
def test_what_is_allowed_grows_evenly_in_its_logarithm(make):
    constraint = make(ToleranceRange(0.2, 0.6))
    along = constraint.along
    assert constraint.kappa == ToleranceRange(0.2, 0.6)
    assert constraint.multipliers == along.knots == len(constraint.scales)
    steps = torch.tensor(constraint.scales).log().diff()
    assert (steps > 0).all()  # the tight end first
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), rtol=1e-4, atol=1e-5)
    assert 0.05 < steps[0] <= 0.22 + 1e-6 or along.knots in (3, 16)
    for index, (kappa, scale) in enumerate(zip(along.at_knots(), constraint.scales, strict=True)):
        label, one = constraint.of_multiplier(index)
        assert one.kappa == kappa
        assert one.scale == pytest.approx(scale)
        assert one.multipliers == 1
        assert label == f"kappa={kappa:.4g}"
    assert sorted(along.at_knots())[0] == 0.2
    assert sorted(along.at_knots())[-1] == 0.6


@given(
    low=st.floats(1e-3, 10),
    ratio=st.floats(1.01, 100),
    place=st.lists(st.floats(0, 1), min_size=1),
)
def test_places_and_tolerances_are_inverse(low, ratio, place):
    along = ReconstructionError(ToleranceRange(low, low * ratio)).along
    place = torch.tensor(place, dtype=torch.float64)
    kappa = along.kappa(place)
    assert (kappa >= along.ends.low).all()
    assert (kappa <= along.ends.high).all()
    torch.testing.assert_close(along.place(kappa), place, rtol=1e-6, atol=1e-6)
    # log-uniform
    logarithm = math.log(low) + math.log(ratio) * place
    torch.testing.assert_close(kappa.log(), logarithm, rtol=1e-6, atol=1e-9)


@given(place=st.lists(st.floats(-0.1, 1.1), min_size=1, max_size=5), knots=st.integers(2, 16))
def test_hats_add_up_to_1_and_have_their_place_as_mean(place, knots):
    place = torch.tensor(place, dtype=torch.float64)
    weights = hats(place, knots)
    assert (weights >= 0).all()
    assert ((weights > 0).sum(1) <= 2).all()
    torch.testing.assert_close(weights.sum(1), torch.ones_like(place))
    at = torch.arange(knots, dtype=place.dtype) / (knots - 1)
    torch.testing.assert_close(weights @ at, place.clamp(0, 1))


def test_values_between_knots():
    values = torch.tensor([100.0, 10.0, 0.0])
    at_knots = interpolated(values, torch.eye(3))
    torch.testing.assert_close(at_knots, values, rtol=1e-5, atol=1e-6)
    middle = interpolated(values, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]))
    assert middle[0].item() == pytest.approx(math.sqrt(1000), rel=1e-2)
    assert 0 < middle[1] < 10
    assert torch.equal(interpolated(torch.zeros(3), torch.eye(3)), torch.zeros(3))


def test_the_tightest_that_is_met():
    kappa = [0.1, 0.12, 0.15, 0.2]
    assert tightest_met(kappa, kappa, [True] * 4) == 0.1
    assert tightest_met(kappa, [0.13, 0.13, 0.15, 0.2], [False, False, True, True]) == 0.13
    # what is reached instead lies beyond the next tolerance, which is met itself
    assert tightest_met(kappa, [0.13, 0.16, 0.15, 0.2], [False, False, True, True]) == 0.15
    # what is missed at the loose end, while it is still learnt, does not matter
    assert tightest_met(kappa, [0.11, 0.12, 0.15, 0.3], [False, True, True, False]) == 0.11
    assert math.isnan(tightest_met(kappa, kappa, [False] * 4))


def test_one_tolerance_of_a_range():
    constraint = ReconstructionError(ToleranceRange(0.1, 0.3))
    x = torch.zeros(2, 4)
    torch.testing.assert_close(constraint.at(0.2)(x, x + 0.3), torch.full((2,), 0.05))
    with pytest.raises(ValueError, match="`kappa` of ReconstructionError must be positive"):
        constraint.at(-1)


def test_a_range_stays():
    constraint = ReconstructionError(ToleranceRange(0.1, 0.3))
    with pytest.raises(ValueError, match=r"cannot become 0\.2: a range is given when"):
        constraint.kappa = 0.2
    with pytest.raises(ValueError, match=r"cannot become 0\.1\.\.0\.2"):
        ReconstructionError(0.1).kappa = ToleranceRange(0.1, 0.2)


@pytest.mark.parametrize("wrap", [lambda c: PerGroup(c, 2), Equality], ids=["groups", "equality"])
def test_it_is_not_wrapped(wrap):
    with pytest.raises(ValueError, match="must have one multiplier, got ReconstructionError"):
        wrap(ReconstructionError(ToleranceRange(0.1, 0.3)))


def test_what_does_not_know_what_is_allowed_takes_no_range():
    class Sparsity(ToleranceConstraint):
        @property
        def scale(self):
            return self.kappa

    assert Sparsity(0.1).scale == 0.1
    with pytest.raises(TypeError, match="Sparsity takes no ToleranceRange"):
        Sparsity(ToleranceRange(0.1, 0.2))


def test_states_take_the_range_along(caplog):
    source = ReconstructionError(ToleranceRange(0.1, 0.3))
    target = ReconstructionError(ToleranceRange(0.2, 0.6))
    target.load_state_dict(source.state_dict())
    assert target.kappa == source.kappa
    assert target.scales == source.scales
    assert "sets kappa to 0.1..0.3 (it was 0.2..0.6)" in caplog.text
    with pytest.raises(ValueError, match=r"saved with a range as kappa, this constraint has 0\.1"):
        ReconstructionError(0.1).load_state_dict(source.state_dict())
    with pytest.raises(ValueError, match="saved with one tolerance as kappa"):
        target.load_state_dict(ReconstructionError(0.1).state_dict())
    broken = {"_extra_state": {**facts_of(source.state_dict()["_extra_state"]), "high": 0.05}}
    with pytest.raises(ValueError, match="0 < low < high"):
        target.load_state_dict(broken)
    assert target.kappa == source.kappa


@pytest.mark.parametrize("how", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_have_their_own_range(how):
    source = ReconstructionError(ToleranceRange(0.1, 0.3))
    other = how(source)
    assert other.along is not source.along
    assert other.scales == source.scales
    assert other.along.place(torch.tensor(0.1)) == 0


def test_a_whole_constraint_is_saved():
    file = io.BytesIO()
    torch.save(ReconstructionError(ToleranceRange(0.1, 0.3)), file)
    file.seek(0)
    assert torch.load(file, weights_only=False).kappa == ToleranceRange(0.1, 0.3)


def test_texts():
    assert str(ToleranceRange(0.06, 0.2)) == f"{ToleranceRange(0.06, 0.2)}" == "0.06..0.2"
    assert "kappa=0.06..0.2" in repr(ReconstructionError(ToleranceRange(0.06, 0.2)))
