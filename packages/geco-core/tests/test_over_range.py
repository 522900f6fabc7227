"""Objectives whose tolerance is a range."""

import copy
import logging
import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from geco_core import (
    ELBO,
    GECO,
    BestFeasible,
    CallableConstraint,
    ClassificationAccuracy,
    Curve,
    MultiplierUpdate,
    PaperUpdate,
    PatchCrossCorrelation,
    PerGroup,
    ReconstructionError,
    RobustUpdate,
    ToleranceRange,
)
from geco_core.constraints.tolerance_range import hats

RANGE = ToleranceRange(0.1, 0.2)


def ranged(**settings):
    return GECO(ReconstructionError(kappa=RANGE), **settings)


class Known(nn.Module):
    """d latents of an ideal Gaussian channel whose error is a function of kappa (D7).

    The error per element is t^2, the rate d ln(1 / t), so that the optimum is t = kappa with a
    relative multiplier of d / 2 everywhere.
    """

    def __init__(self, elements=20):
        super().__init__()
        self.elements = elements
        self.curve = nn.Parameter(torch.full((9,), 0.5))

    def forward(self, kappa):
        place = (kappa / RANGE.low).log() / math.log(RANGE.high / RANGE.low)
        t = kappa * (hats(place, 9) @ self.curve).exp()
        x = torch.zeros(len(kappa), self.elements)
        kl = -self.elements * t.log()
        return kl, x, x + t[:, None]


def train(objective, model, steps, rate=3e-3, batch=64, generator=None):
    optimizer = torch.optim.Adam(model.parameters(), rate)
    losses = []
    for _ in range(steps):
        kappa = objective.draw_tolerance(batch, generator)
        loss = objective(*model(kappa), kappa=kappa)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.step()
        losses.append(loss.detach())
    return losses


def test_one_run_finds_the_whole_curve():
    model, objective = Known(), ranged()
    train(objective, model, 1500, generator=torch.Generator().manual_seed(0))
    curve = objective.curve()
    assert isinstance(curve, Curve)
    assert curve.feasible.all()
    torch.testing.assert_close(curve.reached, curve.kappa, rtol=0.01, atol=0)
    torch.testing.assert_close(curve.kl, -20 * curve.kappa.log(), rtol=0.03, atol=0)
    # the next factor of e in precision costs d nats, from any tolerance
    torch.testing.assert_close(curve.price, torch.full_like(curve.price, 20.0), rtol=0.05, atol=0)
    kappa = torch.tensor([0.1, 0.117, 0.16, 0.2])
    slope = objective.multiplier_at(kappa)
    torch.testing.assert_close(slope, 10 / kappa**2, rtol=0.06, atol=0)
    assert objective.multiplier_at(0.1).shape == ()
    assert objective.multiplier_at(0.1) == slope[0]
    assert curve.smallest == pytest.approx(0.1)


def batches(count, size=24):
    """Batches whose tolerances are knots, so that each example belongs to one alone."""
    generator = torch.Generator().manual_seed(1)
    knots = torch.tensor(ranged().constraints["constraint"].along.at_knots())
    for _ in range(count):
        index = torch.arange(size) % len(knots)
        x = torch.randn(size, 5, generator=generator)
        kl = torch.rand(size, generator=generator) * 10
        error = torch.rand(size, 5, generator=generator) * 0.4
        yield index, knots[index], kl, x, x + error


@pytest.mark.parametrize("update", [None, RobustUpdate(rescale=False, initial=3.0), "paper"])
def test_at_its_knots_it_is_as_many_plain_objectives(update):
    """Same weights, same gradients, same ascents as one objective per tolerance."""
    update = PaperUpdate(rate=0.1) if update == "paper" else update
    whole = ranged(update=update)
    kappas = whole.constraints["constraint"].along.at_knots()
    single = [GECO(ReconstructionError(kappa), update=update) for kappa in kappas]
    for index, kappa, kl, x, g in batches(12):
        g = g.requires_grad_()
        loss = whole(kl, x, g, kappa=kappa)
        (gradient,) = torch.autograd.grad(loss, g)
        parts = [
            one(kl[index == i], x[index == i], g[index == i]) * (index == i).float().mean()
            for i, one in enumerate(single)
        ]
        (expected,) = torch.autograd.grad(sum(parts), g)
        torch.testing.assert_close(gradient, expected, rtol=2e-4, atol=1e-7)
        if not whole.multipliers.update.straight_through:
            torch.testing.assert_close(loss, sum(parts), rtol=2e-4, atol=1e-6)
        for one in (whole, *single):
            one.step()
    tables = torch.cat([one.multipliers.table for one in single], 1)
    torch.testing.assert_close(whole.multipliers.table, tables, rtol=2e-4, atol=1e-5)
    assert whole.info.skipped.sum() == 0


@pytest.mark.parametrize("size", [1, 3, 24])
def test_plain_numbers_do_what_tensors_do(size, monkeypatch):
    quick, slow = ranged(), ranged()
    monkeypatch.setattr(slow.multipliers, "on_host", lambda *args: False)
    generator = torch.Generator().manual_seed(0)
    for step in range(8):
        kappa = quick.draw_tolerance(size, generator)
        x = torch.rand(size, 5, generator=generator)
        g = (x + 0.3 * torch.rand(size, 5, generator=generator)).requires_grad_()
        kl = torch.rand(size, generator=generator)
        mask = torch.rand(size, 5, generator=generator) > 0.2 if step % 2 else None
        if step == 5:
            kl[0] = torch.nan
        losses = [one(kl, x, g, kappa=kappa, mask=mask) for one in (quick, slow)]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6, equal_nan=True)
        gradients = [torch.autograd.grad(loss, g)[0] for loss in losses]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6, equal_nan=True)
        for one in (quick, slow):
            one.step()
        torch.testing.assert_close(
            quick.multipliers.table, slow.multipliers.table, rtol=1e-3, atol=1e-5
        )
    assert quick.multipliers.table.isfinite().all()


def test_a_knot_with_less_than_half_an_example_waits():
    objective = ranged()
    along = objective.constraints["constraint"].along
    step = 1 / (along.knots - 1)
    # three tenths of the way from the third knot to the fourth
    call(objective, along.kappa(2.3 * step))
    objective.step()
    # four examples: 2.8 belong to the third and 1.2 to the fourth
    assert objective.multipliers.table[2].tolist() == [0, 0, 1, 1] + [0] * (along.knots - 4)
    call(objective, along.kappa(2.3 * step), size=1)
    objective.step()
    assert objective.multipliers.table[2].tolist() == [0, 0, 2, 1] + [0] * (along.knots - 4)


def test_draws_are_log_uniform_one_from_each_part():
    objective = ranged()
    before = torch.get_rng_state()
    kappa = objective.draw_tolerance(50, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(kappa, objective.draw_tolerance(50, torch.Generator().manual_seed(0)))
    assert kappa.dtype == torch.float32
    part = (kappa / 0.1).log() / math.log(2) * 50
    assert part.floor().long().sort().values.tolist() == list(range(50))
    assert part.floor().long().tolist() != list(range(50))
    torch.manual_seed(3)
    one = objective.draw_tolerance(4)
    torch.manual_seed(3)
    assert torch.equal(one, objective.draw_tolerance(4))
    with pytest.raises(ValueError, match="`n` must be a whole number from 1"):
        objective.draw_tolerance(0)
    with pytest.raises(TypeError, match="`n` must be a whole number"):
        objective.draw_tolerance(1.5)


def call(objective, kappa, size=4):
    x = torch.zeros(size, 3)
    knob = torch.ones(size, 3, requires_grad=True)
    return objective(knob.sum(1), x, 0.15 * knob, kappa=kappa)


def test_a_number_stands_for_all_examples():
    objective = ranged()
    expected = call(objective, torch.full((4,), 0.15))
    for kappa in (0.15, torch.tensor(0.15), torch.tensor(0.15, dtype=torch.float64)):
        assert torch.allclose(call(objective, kappa), expected)


@pytest.mark.parametrize(
    ("kappa", "error", "message"),
    [
        (0.05, ValueError, r"`kappa` must be in \[0\.1, 0\.2\].*got 0\.05"),
        (0.3, ValueError, r"in \[0\.1, 0\.2\], the range of this objective, got 0\.3"),
        (float("nan"), ValueError, "kappa"),
        (torch.tensor([0.1, 0.1, 0.1, 0.25]), ValueError, r"got 0\.25"),
        (torch.tensor([0.1, 0.1, 0.1, float("nan")]), ValueError, "got nan"),
        (torch.full((3,), 0.15), ValueError, r"shape \(4,\), got \(3,\)"),
        (torch.full((4, 1), 0.15), ValueError, r"shape \(4,\), got \(4, 1\)"),
        (torch.ones(4, dtype=torch.long), TypeError, "floating point, got torch.int64"),
        ("0.1", TypeError, "`kappa` must be a number"),
        (None, ValueError, r"`kappa` is missing.*0\.1\.\.0\.2.*draw_tolerance"),
    ],
)
def test_wrong_tolerances(kappa, error, message):
    objective = ranged()
    before = objective.multipliers.table.clone()
    with pytest.raises(error, match=message):
        call(objective, kappa)
    with pytest.raises(RuntimeError, match="step"):
        objective.step()
    assert torch.equal(objective.multipliers.table, before)
    if not (isinstance(kappa, torch.Tensor) or kappa is None):
        with pytest.raises(error, match="kappa"):
            objective.multiplier_at(kappa)


def test_missing_and_superfluous():
    x, g = torch.zeros(4, 3), torch.ones(4, 3, requires_grad=True)
    with pytest.raises(ValueError, match="`kappa` is missing"):
        ranged()(g.sum(1), x, g)
    with pytest.raises(ValueError, match="`kappa` is given, but the tolerances of this objective"):
        GECO(ReconstructionError(0.1))(g.sum(1), x, g, kappa=0.1)
    # unless somebody takes it
    asked = CallableConstraint(lambda x, g, kappa: g.square().mean(1) - kappa)
    assert GECO(asked)(g.sum(1), x, g, kappa=0.1).isfinite()
    for ask in ("draw_tolerance", "multiplier_at"):
        with pytest.raises(ValueError, match=f"`{ask}` is for objectives with a range"):
            getattr(GECO(ReconstructionError(0.1)), ask)(1)
    with pytest.raises(ValueError, match="`curve` is for objectives with a range"):
        GECO(ReconstructionError(0.1)).curve()


def test_rules_in_which_multipliers_see_each_other_are_refused():
    class Own(MultiplierUpdate):
        relative = True

        def weights(self, table, observation):
            return torch.ones(()), table[0].exp()

        def advance(self, table, observation):
            return table

    GECO(ReconstructionError(0.1), update=Own())
    with pytest.raises(
        TypeError, match=r"the range of 'constraint' needs a ColumnUpdate.*got Own"
    ):
        ranged(update=Own())


class TestSeveral:
    def make(self):
        return GECO(
            {
                "re": ReconstructionError(RANGE),
                "fixed": CallableConstraint(lambda x, g: (g - x).abs().mean(1) - 0.3, scale=0.3),
                "groups": PerGroup(lambda x, g: g.mean(1) - 0.5, groups=2),
                "classes": ClassificationAccuracy(
                    ToleranceRange(0.6, 0.9), lambda images: images[:, :3]
                ),
            }
        )

    def batch(self, size=12, seed=0):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(size, 3, generator=generator)
        g = (x + 0.2 * torch.randn(size, 3, generator=generator)).requires_grad_()
        labels = torch.randint(3, (size,), generator=generator)
        groups = torch.arange(size) % 2
        return torch.rand(size, generator=generator), x, g, {"labels": labels, "groups": groups}

    def test_each_has_its_own_place_along_the_range(self):
        objective = self.make()
        for seed in range(3):
            kl, x, g, batch = self.batch(seed=seed)
            kappa = objective.draw_tolerance(len(x))
            loss = objective(kl, x, g, kappa=kappa, **batch)
            loss.backward()
            assert g.grad.isfinite().all()
            objective.step()
        assert set(objective.curve()) == {"re", "classes"}
        assert objective.curve()["classes"].kappa[0] == pytest.approx(0.9)
        at = objective.multiplier_at(torch.tensor([0.1, 0.2]))
        # the tight end of one is that of the other
        torch.testing.assert_close(at["re"], objective.curve()["re"].multiplier[[0, -1]])
        classes = objective.curve()["classes"].multiplier[[0, -1]]
        torch.testing.assert_close(at["classes"], classes)
        names = [name for name, _ in objective.items()]
        assert names[0] == "re[kappa=0.1]"
        assert {"fixed", "groups[0]", "groups[1]", "classes[kappa=0.9]"} <= set(names)
        report = objective.report()
        assert "re: " in report
        assert "tolerances feasible" in report
        assert "2 groups feasible" in report
        metrics = objective.metrics()
        assert "re/multiplier/highest" in metrics
        assert set(objective.relative_violations()) == {"re", "fixed", "groups", "classes"}
        assert BestFeasible().offer({}, objective)

    def test_those_of_one_tolerance_are_means_over_the_batch(self):
        objective = self.make()
        kl, x, g, batch = self.batch()
        objective(kl, x, g, kappa=0.15, **batch)
        expected = ((g - x).abs().mean(1) - 0.3).mean()
        torch.testing.assert_close(objective.info.constraint["fixed"], expected.detach())
        wanted = torch.stack([(g.mean(1) - 0.5)[i::2].mean() for i in range(2)])
        torch.testing.assert_close(objective.info.constraint["groups"], wanted.detach())

    def test_a_fixed_one_beside_a_range_is_weighted_as_alone_where_the_range_is_one_tolerance(
        self,
    ):
        """With one tolerance for all, the loss is that of two plain constraints."""
        kappa = ReconstructionError(RANGE).along.at_knots()[2]
        fixed = CallableConstraint(lambda x, g: (g - x).abs().mean(1) - 0.1, scale=0.1)
        one = GECO({"re": ReconstructionError(RANGE), "fixed": copy.deepcopy(fixed)})
        two = GECO({"re": ReconstructionError(kappa), "fixed": copy.deepcopy(fixed)})
        for seed in range(6):
            kl, x, g, _ = self.batch(seed=seed)
            losses = [one(kl, x, g, kappa=kappa), two(kl, x, g)]
            torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-6)
            gradients = [torch.autograd.grad(loss, g)[0] for loss in losses]
            torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
            one.step()
            two.step()
        columns = [2, -1]
        table = one.multipliers.table[:, columns]
        torch.testing.assert_close(table, two.multipliers.table, rtol=1e-4, atol=1e-5)
        # knots that saw no example are as they were
        assert (one.multipliers.table[2, [0, 1, 3]] == 0).all()


def test_masked_examples_do_not_count():
    whole, part = ranged(), ranged()
    generator = torch.Generator().manual_seed(0)
    kappa = whole.draw_tolerance(8, generator)
    x = torch.rand(8, 5, generator=generator)
    g = (x + 0.2).requires_grad_()
    mask = torch.ones(8, 5, dtype=torch.bool)
    mask[2] = False
    x = torch.where(mask, x, torch.nan)
    keep = [0, 1, 3, 4, 5, 6, 7]
    loss = whole(torch.ones(8), x, g, kappa=kappa, mask=mask)
    loss.backward()
    assert g.grad.isfinite().all()
    part(torch.ones(7), x[keep], g[keep], kappa=kappa[keep])
    violations = [one.info.constraint for one in (whole, part)]
    torch.testing.assert_close(*violations)


def test_micro_batches_are_one_batch():
    one, two = ranged(), ranged()
    for index, kappa, kl, x, g in batches(4):
        g = g.requires_grad_()
        one(kl, x, g, kappa=kappa)
        one.step()
        for part in (index < 3, index >= 3):
            two(kl[part], x[part], g[part], kappa=kappa[part])
        two.step()
    torch.testing.assert_close(one.multipliers.table, two.multipliers.table, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("update", [None, PaperUpdate(rate=0.05)], ids=["robust", "paper"])
def test_resume_is_exact(update):
    def parts(seed):
        return ranged(update=update), Known(), torch.Generator().manual_seed(seed)

    objective, model, generator = parts(0)
    train(objective, model, 5, generator=generator)
    states = copy.deepcopy((objective.state_dict(), model.state_dict(), generator.get_state()))
    expected = train(objective, model, 5, generator=generator)
    other, twin, source = parts(1)
    other.load_state_dict(states[0])
    twin.load_state_dict(states[1])
    source.set_state(states[2])
    assert torch.equal(torch.stack(train(other, twin, 5, generator=source)), torch.stack(expected))
    assert torch.equal(other.multipliers.table, objective.multipliers.table)


def test_states_of_other_ranges_are_refused():
    state = ranged().state_dict()
    for other in (GECO(ReconstructionError(0.1)), GECO(ReconstructionError(ToleranceRange(1, 9)))):
        before = other.multipliers.table.clone()
        with pytest.raises(ValueError, match="build the objective as it was"):
            other.load_state_dict(state)
        assert torch.equal(other.multipliers.table, before)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_is_one_graph(backend):
    plain, compiled = ranged(), ranged()
    models = [Known(), Known()]

    def forward(kappa):
        loss = compiled(*models[1](kappa), kappa=kappa)
        compiled.step()
        return loss

    torch._dynamo.reset()
    run = torch.compile(forward, fullgraph=True, backend=backend)
    for _ in range(5):
        kappa = plain.draw_tolerance(16)
        expected = plain(*models[0](kappa), kappa=kappa)
        plain.step()
        for loss in (run(kappa), expected):
            loss.backward()
        torch.testing.assert_close(models[0].curve.grad, models[1].curve.grad)
    torch.testing.assert_close(plain.multipliers.table, compiled.multipliers.table)


def test_no_host_reads_on_fake_tensors():
    with FakeTensorMode():
        objective, model = ranged(), Known()
        for _ in range(2):
            kappa = objective.draw_tolerance(8)
            objective(*model(kappa), kappa=kappa).backward()
            objective.step()
        assert objective.curve().kl.shape == objective.curve().kappa.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    objective, reference = ranged(), ranged()
    for _, kappa, kl, x, g in batches(3):
        kl, x, g = kl.to(dtype), x.to(dtype), g.to(dtype).requires_grad_()
        loss = objective(kl, x, g, kappa=kappa)
        assert loss.dtype == torch.float32
        expected = reference(kl.float(), x.float(), g.float(), kappa=kappa)
        torch.testing.assert_close(loss, expected)
        objective.step()
        reference.step()
    assert objective.half().multipliers.table.dtype == torch.float32


def test_a_tight_end_that_cannot_be_reached_is_said_with_what_can(caplog):
    class Limited(Known):
        def forward(self, kappa):
            kl, x, g = super().forward(kappa)
            floor = torch.full_like(g, 0.13)
            return kl, x, torch.hypot(g, floor)

    objective, model = ranged(), Limited()
    with caplog.at_level(logging.WARNING, "geco_core"):
        train(objective, model, 4000, generator=torch.Generator().manual_seed(0))
    said = [r.getMessage() for r in caplog.records if "along the whole of its range" in r.message]
    assert len(said) == len(caplog.records) >= 1
    assert "0.1..0.2: in place of kappa 0.1 the model reaches 0.1" in said[-1]
    assert "the smallest tolerance that is met is about 0.1" in said[-1]
    smallest = objective.curve().smallest
    assert 0.13 < smallest < 0.16
    assert not objective.info.feasible[0]
    assert objective.info.feasible[-1]


def test_reachable_ranges_are_not_complained_of(caplog):
    train(ranged(), Known(), 1500, generator=torch.Generator().manual_seed(0))
    assert caplog.text == ""


def test_evaluation_leaves_the_multipliers_alone():
    objective, model = ranged(), Known()
    train(objective, model, 3)
    objective.eval()
    table = objective.multipliers.table.clone()
    with torch.no_grad():
        objective(*model(torch.tensor([0.15])), kappa=0.15)
    objective.step()
    assert torch.equal(table, objective.multipliers.table)


def test_other_objectives_say_that_they_serve_no_range():
    constraint = PatchCrossCorrelation(ToleranceRange(0.5, 0.9), 2)
    x = torch.rand(2, 1, 4, 4)
    with pytest.raises(TypeError, match="is a range, which only GECO itself serves"):
        constraint.measure("pncc", torch.ones(2), x, x, {})
    assert ELBO is not GECO
