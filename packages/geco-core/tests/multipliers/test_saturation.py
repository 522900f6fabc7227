"""A constraint that cannot be reached is said, once, and training goes on."""

import copy
import logging
import math
import re

import pytest
import torch

from geco_core import GECO, CallableConstraint, PaperUpdate, ReconstructionError, RobustUpdate


class MeanOfHundred(CallableConstraint):
    def __init__(self):
        super().__init__(lambda x, r, constraint: constraint, scale=2.0)

    def elements(self, x):
        return 100


def unreachable(loop):
    """Two latents cannot carry four features to within a thousandth."""
    return loop(GECO(ReconstructionError(kappa=1e-3)), rate=1e-2)


def records(caplog):
    return [r for r in caplog.records if r.name.startswith("geco_core")]


def test_it_is_said_once_without_being_asked(loop, caplog):
    trained = unreachable(loop)
    with caplog.at_level(logging.WARNING):
        losses = trained.run(1800)
    (record,) = records(caplog)
    info = trained.objective.info
    assert info.saturated.item()
    assert not info.feasible.item()
    message = record.getMessage()
    for part in ("'constraint' is not reached", "kappa 0.001", "saturated"):
        assert part in message
    assert re.search(r"the smallest so far is \d", message)
    answer = re.search(
        r"at most ([\d.]+)% smaller at any multiplier, a violation of ([\d.]+)", message
    )
    assert 0 < float(answer[1]) < 50
    # two latents cannot do better than the two directions that they leave out
    assert (0.5**2 + 0.1**2) / 4 * 0.7 < float(answer[2]) < (0.5**2 + 0.1**2) / 4 * 1.3
    # it goes on at the best trade-off: the error falls to what two latents allow, 0.5^2 + 0.1^2
    assert all(loss.isfinite() for loss in losses)
    reached = (info.moving_average + 1e-6).item()
    assert reached == pytest.approx((0.5**2 + 0.1**2) / 4, rel=0.3)
    assert trained.objective.report().startswith("constraint: saturated")
    trained.objective.eval()
    trained.objective.state_dict()
    assert len(records(caplog)) == 1


def test_it_is_said_again_after_it_had_been_reached(feed, caplog):
    update = RobustUpdate(bounds=(1e-2, 1e2))
    objective = GECO(lambda x, r, constraint: constraint, update=update)
    with caplog.at_level(logging.WARNING):
        feed(objective, *[4.0] * 1200)
        feed(objective, *[-0.9] * 400)
        assert len(records(caplog)) == 1
        feed(objective, *[4.0] * 1600)
    assert len(records(caplog)) == 2


def test_what_can_still_be_expected(feed, caplog):
    """A loss of 1 and a multiplier of 7: 1 / 2.5 / 7 of the error answers to it."""
    bounds = RobustUpdate(bounds=(0.0, 7.0))
    objective = GECO(MeanOfHundred(), update=bounds)
    with caplog.at_level(logging.WARNING):
        feed(objective, *[1.0] * 300, *[3.0] * 1900)
    (record,) = records(caplog)
    message = record.getMessage()
    # all in the constraint's own units, of which the scale is 2
    assert "the smallest so far is 1;" in message
    share = 1 / 2.5 / 7
    assert f"at most {share:.1%} smaller at any multiplier" in message
    reachable = float(re.search(r"a violation of ([\d.]+);", message)[1])
    assert reachable == pytest.approx(2 * ((1 + 1.5) * (1 - share) - 1), rel=5e-3)


@pytest.mark.parametrize("update", [RobustUpdate(), PaperUpdate()])
def test_nothing_is_expected_where_the_response_is_not_known(feed, caplog, update):
    objective = GECO(lambda x, r, constraint: constraint, update=update)
    with caplog.at_level(logging.WARNING):
        feed(objective, *[4000.0] * 1600)
    outlook = update.outlook(objective.multipliers.table)
    if isinstance(update, PaperUpdate):
        assert outlook is None
        assert not records(caplog)
        return
    assert math.isnan(outlook.share.item())
    (record,) = records(caplog)
    assert "the smallest so far is 4000;" in record.getMessage()
    assert "at any multiplier" not in record.getMessage()


@pytest.mark.parametrize("ask", ["eval", "state_dict", "report"])
def test_moments_at_which_it_looks(feed, caplog, ask):
    objective = GECO(lambda x, r, constraint: constraint)
    feed(objective, *[4000.0] * 1600)
    objective._watch.forget()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        getattr(objective, ask)()
    assert len(records(caplog)) == 1


def test_reachable_constraints_are_not_complained_of(loop, caplog):
    with caplog.at_level(logging.INFO):
        trained = loop(GECO(ReconstructionError(kappa=0.8)))
        trained.run(300)
        copy.deepcopy(trained.objective).eval()
    assert not records(caplog)
    assert "violated" in trained.objective.report() or "feasible" in trained.objective.report()
    assert not torch.any(trained.objective.info.saturated)
