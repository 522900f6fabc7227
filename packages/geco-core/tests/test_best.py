import copy
import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from geco_core import GECO, ReconstructionError
from geco_core.baselines import ELBO
from geco_core.best import BestFeasible

numbers = st.floats(-2, 2)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.floats(0, 100), numbers, numbers), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.1]),
)
def test_keeps_the_lowest_kl_of_the_feasible_else_the_least_violating(offers, tolerance):
    best = BestFeasible(tolerance)
    for step, (kl, one, two) in enumerate(offers):
        best.offer({"step": step}, kl=kl, violation={"one": one, "two": two}, step=step)
    feasible = [kl for kl, one, two in offers if max(one, two) <= tolerance]
    assert best.found == bool(feasible)
    if feasible:
        assert best.best.kl == min(feasible)
        assert best.best is best.closest
    else:
        with pytest.raises(RuntimeError, match="nothing offered was feasible"):
            best.best  # noqa: B018
        assert best.closest.worst == min(max(one, two) for _, one, two in offers)
    assert best.closest.state == {"step": best.closest.step}


def test_says_what_came_closest_and_never_restores_it():
    model, best = nn.Linear(2, 1), BestFeasible(0.05)
    with pytest.raises(RuntimeError, match="nothing finite was offered yet"):
        best.restore(model)
    assert best.closest is None
    best.offer(model, kl=3.0, violation={"RE": 0.25, "CLA": -1.0}, step=7)
    with pytest.raises(RuntimeError, match=r"within 0\.05.*step 7.*'RE' by 0\.25 of its scale"):
        best.restore(model)


def test_restores_a_copy_that_training_did_not_touch():
    model, best = nn.BatchNorm1d(3), BestFeasible()
    model(torch.randn(8, 3))
    expected = copy.deepcopy(model.state_dict())
    assert best.offer(model, kl=torch.tensor(1.0), violation=torch.tensor(-0.1))
    for _ in range(3):
        model(torch.randn(8, 3))
    with torch.no_grad():
        model.weight.add_(1.0)
    best.restore(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name])
    assert best.best.state._metadata == expected._metadata


def test_payloads_are_copied_deeply_and_detached():
    weight = torch.ones(2, requires_grad=True)
    payload = {"weights": [weight, (weight * 2,)], "epoch": 3, "name": "run"}
    best = BestFeasible(device=None)
    best.offer(payload, kl=1.0, violation=0.0)
    with torch.no_grad():
        weight.zero_()
    kept = best.best.state
    assert kept["weights"][0].tolist() == [1.0, 1.0]
    assert not kept["weights"][1][0].requires_grad
    assert (kept["epoch"], kept["name"]) == (3, "run")


@pytest.mark.parametrize("kl", [float("nan"), float("inf"), 1.0])
def test_what_is_not_finite_is_never_kept(kl):
    best = BestFeasible()
    violation = float("nan") if kl == 1.0 else -1.0
    assert not best.offer({}, kl=kl, violation=violation)
    assert best.closest is None


def test_reads_an_objective():
    torch.manual_seed(0)
    objective = GECO({"RE": ReconstructionError(0.5), "far": ReconstructionError(2.0)})
    best = BestFeasible(0.02)
    assert not best.offer({}, objective)  # nothing was computed yet: all of it is NaN
    x = torch.zeros(4, 3)
    kl = torch.full((4,), 2.5, requires_grad=True)
    objective(kl, x, (x + 0.6).requires_grad_()).backward()
    objective.step()
    assert best.offer({}, objective, step=1)
    assert best.closest.kl == 2.5
    assert best.closest.violation["RE"] == pytest.approx(0.36 / 0.25 - 1, abs=1e-5)
    assert best.closest.violation["far"] == pytest.approx(0.36 / 4 - 1, abs=1e-5)
    assert not best.found
    assert best.offer({}, objective, violation={"RE": 0.0, "far": 0.0}, kl=9.0)
    assert best.best.kl == 9.0

    bare = GECO(ReconstructionError(1.0))
    bare(kl, x, (x + 0.6).requires_grad_()).backward()
    bare.step()
    best = BestFeasible()
    assert best.offer({}, bare)
    assert best.best.violation == {"constraint": pytest.approx(0.36 - 1, abs=1e-5)}


def test_resumes_where_it_was(tmp_path):
    model, first = nn.Linear(2, 1), BestFeasible(0.1)
    first.offer(model, kl=1.0, violation={"RE": 0.05}, step=4)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    second = BestFeasible(0.1)
    second.load_state_dict(state)
    state["kept"]["state"]["weight"].zero_()  # the loaded dictionary stays the caller's
    state["kept"]["violation"]["RE"] = 5.0
    assert second.best.step == 4
    assert second.found
    assert torch.equal(second.best.state["weight"], model.weight.detach())
    assert not second.offer(model, kl=2.0, violation={"RE": 0.0})
    assert second.offer(model, kl=0.5, violation={"RE": 0.0})

    empty = BestFeasible(0.1)
    empty.load_state_dict(BestFeasible(0.1).state_dict())
    assert empty.closest is None
    first.clear()
    assert first.closest is None


def test_bad_input_is_named_and_loses_nothing():
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`tolerance` must be non-negative and finite"):
            BestFeasible(wrong)
    with pytest.raises(TypeError, match="`tolerance` must be a non-negative number, got str"):
        BestFeasible("0.1")
    best = BestFeasible(0.1)
    best.offer({"a": 1}, kl=1.0, violation={"RE": 0.0})
    for kwargs in ({}, {"kl": 1.0}, {"violation": 0.0}, {"objective": ELBO(beta=1.0)}):
        with pytest.raises(ValueError, match="needs `kl` and `violation`"):
            best.offer({}, **kwargs)
    with pytest.raises(ValueError, match=r"names of earlier offers, \['RE'\], got \['CLA'\]"):
        best.offer({}, kl=0.1, violation={"CLA": 0.0})
    with pytest.raises(ValueError, match="`violation` is empty"):
        best.offer({}, kl=0.1, violation={})
    with pytest.raises(ValueError, match="must hold 'tolerance' and 'kept'"):
        best.load_state_dict({"kept": None})
    with pytest.raises(ValueError, match="saved with `tolerance`"):
        best.load_state_dict(BestFeasible(0.2).state_dict())
    assert best.best.state == {"a": 1}


@pytest.mark.parametrize("violation", [-1.0, 0.0, 0.0199, 0.0201, 1.0, math.nan])
def test_feasible_means_the_same_everywhere(feed, violation):
    """The objective's info, its report, and what is kept."""
    objective, best = GECO(lambda x, r, constraint: constraint), BestFeasible()
    feed(objective, violation)
    feasible = violation <= 0.02
    assert objective.info.feasible.item() is feasible
    assert ("feasible" in objective.report()) is feasible
    best.offer({}, objective)
    assert best.found is feasible
