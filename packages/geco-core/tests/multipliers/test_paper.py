"""Algorithm 1 replayed by hand."""

import math

import pytest
import torch

from geco_core import GECO, PaperUpdate, ReconstructionError
from geco_core.multipliers.update import COMMON_ROWS


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("rate", [1e-2, 0.3])
def test_algorithm_1_by_hand(feed, given, rate, decay):
    violations = [3.0, -1.0, 0.5, 2.0, -4.0, 0.0]
    objective = GECO({"a": given("a")}, update=PaperUpdate(rate=rate, decay=decay))
    multiplier, average = 1.0, None
    for violation in violations:
        before = multiplier
        average = violation if average is None else decay * average + (1 - decay) * violation
        multiplier *= math.exp(rate * average)
        loss = feed(objective, violation)
        # the loss has the value of the moving average, at the multiplier before the ascent
        assert loss.item() == pytest.approx(1.0 + before * average, rel=1e-5)
        assert objective.info.moving_average["a"].item() == pytest.approx(average, rel=1e-5)
        assert objective.info.multiplier["a"].item() == pytest.approx(multiplier, rel=1e-5)


def test_algorithm_1_by_hand_for_several(feed, given):
    names, rate, decay = ["a", "b", "c"], 0.1, 0.9
    objective = GECO({name: given(name) for name in names}, update=PaperUpdate(rate, decay))
    trace = [[1.0, -2.0, 0.3], [0.5, 4.0, -0.3], [-1.0, 1.0, 0.0]]
    multiplier, average = [1.0] * 3, [None] * 3
    for violations in trace:
        average = [
            v if m is None else decay * m + (1 - decay) * v
            for m, v in zip(average, violations, strict=True)
        ]
        value = 1.0 + sum(a * b for a, b in zip(multiplier, average, strict=True))
        multiplier = [a * math.exp(rate * b) for a, b in zip(multiplier, average, strict=True)]
        assert feed(objective, violations).item() == pytest.approx(value, rel=1e-5)
    for i, name in enumerate(names):
        assert objective.info.multiplier[name].item() == pytest.approx(multiplier[i], rel=1e-5)
        assert objective.info.moving_average[name].item() == pytest.approx(average[i], rel=1e-5)


def test_straight_through_gradient_is_the_batch_gradient(loop):
    """Value of the moving average, gradient of the batch: not (1 - decay) of it."""
    objective = GECO(ReconstructionError(kappa=0.3), update=PaperUpdate(rate=0.1, decay=0.9))
    trained = loop(objective)
    trained.run(5)
    multiplier = objective.info.multiplier.clone()
    x, noise = trained.batch()
    reconstruction, kl = trained.model(x, noise)
    got = torch.autograd.grad(objective(kl, x, reconstruction), trained.model.parameters())
    reconstruction, kl = trained.model(x, noise)
    plain = kl.mean() + multiplier * ((x - reconstruction) ** 2).mean()
    expected = torch.autograd.grad(plain, trained.model.parameters())
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_the_rate_changes_the_trace(feed, given):
    traces = []
    for rate in (1e-4, 1e-2, 1.0):
        objective = GECO(given("constraint"), update=PaperUpdate(rate=rate))
        feed(objective, *[5.0] * 10)
        traces.append(objective.info.multiplier.item())
    assert traces == pytest.approx([math.exp(rate * 50) for rate in (1e-4, 1e-2, 1.0)], rel=1e-4)


def test_common_rows():
    assert PaperUpdate().rows[: len(COMMON_ROWS)] == COMMON_ROWS


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"rate": -1.0}, ValueError),
        ({"rate": math.nan}, ValueError),
        ({"rate": math.inf}, ValueError),
        ({"rate": "fast"}, TypeError),
        ({"decay": 1.0}, ValueError),
        ({"decay": -0.1}, ValueError),
        ({"decay": None}, TypeError),
    ],
)
def test_bad_settings(settings, error):
    with pytest.raises(error, match=f"`{next(iter(settings))}`"):
        PaperUpdate(**settings)
