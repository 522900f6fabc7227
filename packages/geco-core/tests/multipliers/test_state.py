"""The table: plain numbers and tensors do the same, and both follow whoever changes it."""

import copy
import math

import pytest
import torch
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st

from geco_core import GECO, MultiplierUpdate, PaperUpdate, RobustUpdate
from geco_core.constraints.base import Measure
from geco_core.multipliers import Multipliers, Observation
from geco_core.multipliers.observed import Seen

ELEMENTS = [12.0, math.nan]


def numbers(*violations, loss=3.0, examples=4):
    """What is seen of a batch, in plain numbers."""
    return Seen(Observation(list(violations), loss, ELEMENTS, 1.0), None, examples)


def tensors(*violations, loss=3.0, examples=4, counts=None, dtype=torch.float32):
    """The same in tensors."""
    values = (torch.tensor(value, dtype=dtype) for value in (violations, loss, ELEMENTS))
    return Seen(Observation(*values, 1.0), counts, examples)


def weights(multipliers, seen):
    """The weights of the loss and of the violations."""
    knobs = [torch.zeros((), requires_grad=True) for _ in range(3)]
    measures = [Measure(knob) for knob in knobs[1:]]
    loss = multipliers.weighted(knobs[0], measures, [1.0, 1.0], seen)
    return torch.stack(torch.autograd.grad(loss, knobs))


rules = st.sampled_from([RobustUpdate(), RobustUpdate(rescale=False), PaperUpdate(1e-3)])


@settings(deadline=None, max_examples=40)
@cases(
    st.lists(
        st.lists(
            st.floats(-3.0, 1e4, allow_subnormal=False) | st.just(math.nan),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=20,
    ),
    rules,
)
def test_plain_numbers_do_what_tensors_do(trace, rule):
    """The arithmetic of the CPU and that of the devices, step by step; the loss may be NaN."""
    do_alike(trace, rule, torch.float64, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rule", [RobustUpdate(), RobustUpdate(rescale=False), PaperUpdate(1e-3)])
def test_plain_numbers_do_what_tensors_do_in_single_precision(rule, seed):
    """The rule compares, so that not every trace is alike in digits that are not there."""
    generator = torch.Generator().manual_seed(seed)
    violations = 3.0 * torch.randn(40, 2, generator=generator)
    trace = torch.cat([violations, 50.0 * torch.rand(40, 1, generator=generator)], 1)
    do_alike(trace.tolist(), rule, torch.float32, rtol=1e-4, atol=1e-5)


def do_alike(trace, rule, dtype, *, rtol, atol):
    """Plain numbers and tensors go through a trace and agree at each step."""
    host, device = (Multipliers(rule, 2).to(dtype) for _ in range(2))
    for *violations, loss in trace:
        usable = [0.0 if math.isnan(value) else value for value in violations]
        torch.testing.assert_close(
            weights(host, numbers(*usable, loss=1.0)),
            weights(device, tensors(*usable, loss=1.0, dtype=dtype)),
            rtol=1e-4,  # these are in single precision
            atol=1e-7,
        )
        host.ascend(numbers(*violations, loss=loss))
        device.ascend(tensors(*violations, loss=loss, dtype=dtype))
        torch.testing.assert_close(host.table, device.table, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_numbers_follow_whoever_changes_the_table(dtype):
    """They are kept between the calls: a table loaded, edited or copied must be read anew."""
    host, seen = Multipliers(RobustUpdate(), 2).to(dtype), numbers(0.5, 0.5)
    host.ascend(numbers(0.5, -0.25))
    saved = {key: value.clone() for key, value in host.state_dict().items()}
    before = weights(host, seen)
    twin = copy.deepcopy(host)
    host.ascend(numbers(9.0, 9.0))
    assert not torch.equal(weights(host, seen), before)
    assert torch.equal(weights(twin, seen), before)
    host.load_state_dict(saved)
    assert torch.equal(weights(host, seen), before)
    with torch.no_grad():
        host.table[0] += 1.0
    assert not torch.equal(weights(host, seen), before)
    host.table = twin.table.clone()
    assert torch.equal(weights(host, seen), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plain_numbers_are_those_of_the_table(dtype):
    """A run that goes on and one that resumes from the table compute with the same numbers."""
    host = Multipliers(RobustUpdate(), 2).to(dtype)
    for violation in (0.1, 1.0 / 3.0, -0.7):
        host.ascend(numbers(violation, violation))
        fresh = Multipliers(RobustUpdate(), 2).to(dtype)
        fresh.load_state_dict(host.state_dict())
        seen = numbers(0.3, 0.3)
        assert torch.equal(weights(host, seen), weights(fresh, seen))


@pytest.mark.parametrize(
    ("numbers_may_be_used", "make"),
    [
        (True, lambda: Multipliers(RobustUpdate(), 2)),
        (True, lambda: Multipliers(PaperUpdate(), 2)),
        (False, lambda: Multipliers(OnlyTensors(), 2)),
        (False, lambda: Multipliers(RobustUpdate(), 2).to("meta")),
    ],
)
def test_where_the_numbers_live(numbers_may_be_used, make):
    device = make().table.device
    measures = [Measure(torch.ones((), device=device, requires_grad=True))] * 2
    loss = torch.ones((), device=device)
    seen = make().observe(loss, measures, [1.0, 1.0], ELEMENTS, 4)
    assert seen.on_host is numbers_may_be_used


def test_a_table_made_in_inference_mode_has_no_version_and_still_works():
    with torch.inference_mode():
        multipliers = Multipliers(RobustUpdate(), 1)
    measure = Measure(torch.ones((), requires_grad=True))
    for one, on_host in ((multipliers, False), (Multipliers(RobustUpdate(), 1), True)):
        seen = one.observe(torch.ones(()), [measure], [1.0], [math.nan], 4)
        assert seen.on_host is on_host


class OnlyTensors(MultiplierUpdate):
    """A rule as anybody may write it: it sees all that there is, and has a row of its own."""

    @property
    def rows(self):
        return (*super().rows, "loss", "elements")

    @property
    def relative(self):
        return True

    def table(self, constraints):
        table = super().table(constraints)
        table[4] = -1.0
        return table

    def weights(self, table, observation):
        return table.new_ones(()), table[0]

    def advance(self, table, observation):
        new = table.clone()
        new[0] += 0.5 * observation.violation
        new[1] = observation.violation
        new[2] += 1
        new[4] = observation.loss
        new[5] = observation.elements
        return new


def test_a_rule_sees_the_loss_and_the_elements(feed, given):
    """Averaged over micro-batches by their examples."""
    from geco_core import ReconstructionError

    objective = GECO({"RE": ReconstructionError(1.0), "own": given("own")}, update=OnlyTensors())
    for examples, loss in ((6, 1.0), (2, 5.0)):
        x, knob = torch.zeros(examples, 3, 4), torch.zeros(examples, requires_grad=True)
        reconstruction = x + knob.reshape(-1, 1, 1)
        objective(loss + knob, x, reconstruction, own=knob + loss)
    objective.step()
    rows = dict(zip(objective.multipliers.update.rows, objective.multipliers.table, strict=True))
    assert rows["loss"].tolist() == [2.0, 2.0]
    assert rows["moving_average"].tolist() == [-1.0, 2.0]
    assert rows["elements"][0] == 12
    assert rows["elements"][1] == 0  # not even its scale
    assert not objective.info.saturated["RE"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("update", [None, OnlyTensors()], ids=["numbers", "tensors"])
def test_a_loss_that_is_not_finite_is_counted_and_moves_nothing(given, bad, update):
    objective = GECO({"a": given("a"), "b": given("b")}, update=update)
    knob, x = torch.zeros(4, requires_grad=True), torch.zeros(4, 1)
    objective(knob + 1.0, x, x, a=knob + 1.0, b=knob - 1.0)
    objective.step()
    before = objective.multipliers.table.clone()
    objective(knob + bad, x, x, a=knob + 1.0, b=knob - 1.0)
    objective.step()
    before[3] += 1
    torch.testing.assert_close(objective.multipliers.table, before, equal_nan=True)
    assert objective.info.skipped["a"].item() == 1
    assert "1 ascents skipped" in objective.report()


def test_what_was_not_seen_stays_and_is_not_counted():
    multipliers = Multipliers(RobustUpdate(), 2)
    multipliers.ascend(tensors(1.0, 1.0))
    before = multipliers.table.clone()
    multipliers.ascend(tensors(3.0, 0.0, counts=torch.tensor([4.0, 0.0])))
    assert torch.equal(multipliers.table[:, 1], before[:, 1])
    assert not torch.equal(multipliers.table[:, 0], before[:, 0])


@pytest.mark.parametrize("rule", [RobustUpdate(), PaperUpdate()])
def test_a_table_of_the_first_version_held_the_logarithm(rule):
    rows = ("log_multiplier", "moving_average", "ascents", "skipped")
    saved = torch.tensor([[0.0, 2.0], [0.5, -0.5], [3.0, 3.0], [0.0, 1.0]])
    multipliers = Multipliers(rule, 2)
    multipliers.table = multipliers.with_rows(saved, rows)
    expected = torch.tensor([1.0, math.exp(2.0)])
    torch.testing.assert_close(multipliers.relative_multiplier([1.0, 1.0]), expected)
    assert torch.equal(multipliers.table[1:4], saved[1:])
    if isinstance(rule, PaperUpdate):
        assert torch.equal(multipliers.table[4], saved[0])  # goes on from there


class Longer(OnlyTensors):
    """A later version of the rule, with one row less and one more, in another order."""

    @property
    def rows(self):
        return (*MultiplierUpdate.rows.fget(self), "new", "elements")

    def table(self, constraints):
        table = MultiplierUpdate.table(self, constraints)
        table[4] = 7.0
        return table


Longer.__name__ = OnlyTensors.__name__


def test_an_older_table_is_read_by_the_names_of_its_rows(given):
    old, new = (GECO(given("a"), update=rule) for rule in (OnlyTensors(), Longer()))
    old.multipliers.table.copy_(torch.arange(6.0)[:, None])
    new.load_state_dict(old.state_dict())
    assert new.multipliers.table.flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 7.0, 5.0]
    assert old.multipliers.table.flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_half_precision_never_reaches_the_table():
    """Not through the default dtype, nor through whoever converts buffers, nor a half state."""
    old = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        born = Multipliers(RobustUpdate(initial=2.0), 2)
    finally:
        torch.set_default_dtype(old)
    assert born.table.dtype == torch.float32
    torch.testing.assert_close(born.table, Multipliers(RobustUpdate(initial=2.0), 2).table)
    converted = Multipliers(RobustUpdate(), 1)
    converted.table.data = converted.table.data.bfloat16()  # as FSDP does with `buffer_dtype`
    measure = Measure(torch.tensor(0.02, requires_grad=True))
    for _ in range(300):
        converted.ascend(converted.observe(torch.ones(()), [measure], [1.0], [math.nan], 4))
    assert converted.table.dtype == torch.float32
    assert converted.table[2].item() == 300.0
    half = {key: value.half() for key, value in converted.state_dict().items()}
    for assign in (False, True):
        loaded = Multipliers(RobustUpdate(), 1)
        loaded.load_state_dict(half, assign=assign)
        assert loaded.table.dtype == torch.float32
        torch.testing.assert_close(loaded.table, converted.table, rtol=1e-3, atol=1e-3)
