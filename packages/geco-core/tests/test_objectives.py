"""GECO in a loop: what it does, what it must not do, and what it refuses."""

import copy
import math
import pickle

import pytest
import torch

from geco_core import GECO, ClassificationAccuracy, PaperUpdate, ReconstructionError


def bare(x, reconstruction, constraint):
    return constraint


def error(x, reconstruction):
    return (x - reconstruction).square().mean(1) - 0.04


def snapshot(objective):
    return {k: copy.deepcopy(v) for k, v in objective.state_dict().items()}


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[key]), key
        else:
            assert value == other[key], key


def test_reaches_its_target(loop):
    objective = GECO(ReconstructionError(kappa=0.5))
    trained = loop(objective, rate=2e-2)
    trained.run(1500, size=64)
    x, noise = trained.batch(4000)
    reconstruction, _ = trained.model(x, noise)
    assert (x - reconstruction).square().mean().sqrt().item() == pytest.approx(0.5, rel=0.03)


def test_output_mirrors_the_input(loop):
    single, named = GECO(ReconstructionError(0.5)), GECO({"re": ReconstructionError(0.5)})
    loop(single).run(3)
    loop(named).run(3)
    fields = ("constraint", "moving_average", "multiplier", "relative_multiplier", "beta")
    fields += ("feasible", "saturated", "skipped")
    for field in fields:
        assert single.info[field].shape == ()
        assert set(named.info[field]) == {"re"}
        torch.testing.assert_close(single.info[field], named.info[field]["re"])
    for objective in (single, named):
        for field in ("loss", "kl"):
            assert objective.info[field].shape == ()
            assert not objective.info[field].requires_grad
    with pytest.raises(KeyError, match="no field 'lambda'"):
        single.info["lambda"]


def test_info_before_the_first_call_and_its_independence(loop):
    objective = GECO(ReconstructionError(0.5))
    info = objective.info
    assert math.isnan(info.loss)
    assert math.isnan(info.moving_average)
    assert info.multiplier.item() == pytest.approx(4.0)
    assert info.relative_multiplier.item() == pytest.approx(1.0)
    loop(objective).run(2)
    assert math.isnan(info.loss)  # a snapshot
    assert objective.info.beta.item() == pytest.approx(4 / 2 / objective.info.multiplier.item())


def test_several_constraints_share_one_loss(loop):
    """The weights: KL against every relative violation, scaled by one number."""
    objective = GECO({"tight": ReconstructionError(0.1), "loose": ReconstructionError(1.0)})
    trained = loop(objective)
    x, noise = trained.batch()
    reconstruction, kl = trained.model(x, noise)
    mse = (x - reconstruction).square().mean().item()
    tight, loose = mse / 0.01 - 1, mse - 1
    # both start at d / 2 = 2
    expected = (kl.mean() + 2 * tight + 2 * loose) / (1 + 2 * max(tight, 1) + 2 * max(loose, 1))
    torch.testing.assert_close(objective(kl, x, reconstruction), expected)


def test_batch_keywords_reach_the_constraints():
    classifier = torch.nn.Linear(4, 3)
    seen = {}

    def user(x, reconstruction, weight):
        seen["weight"] = weight
        return weight * (reconstruction - x).mean(1)

    objective = GECO({"class": ClassificationAccuracy(0.9, classifier), "own": user})
    x = torch.randn(5, 4)
    reconstruction = torch.randn(5, 4, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1])
    objective(torch.rand(5), x, reconstruction, labels=labels, weight=2.0, unused="ignored")
    assert seen["weight"] == 2.0
    with pytest.raises((TypeError, ValueError), match="labels"):
        objective(torch.rand(5), x, reconstruction, weight=2.0)


def test_a_misspelt_keyword_is_refused():
    x = torch.randn(5, 4)
    reconstruction = torch.randn(5, 4, requires_grad=True)
    mask = torch.ones(5, 4, dtype=torch.bool)
    objective = GECO(ReconstructionError(0.1))
    with pytest.raises(TypeError, match=r"`masks`, which is nearly `mask`.*`weights`"):
        objective(torch.rand(5), x, reconstruction, masks=mask)
    # what resembles nothing is another objective's business
    objective(torch.rand(5), x, reconstruction, mask=mask, labels=None)


def test_a_function_that_takes_everything_may_take_any_keyword():
    seen = {}

    def user(x, reconstruction, **batch):
        seen.update(batch)
        return (reconstruction - x).mean(1)

    objective = GECO({"re": ReconstructionError(0.1), "own": user})
    x, reconstruction = torch.randn(5, 4), torch.randn(5, 4, requires_grad=True)
    objective(torch.rand(5), x, reconstruction, masks=3)
    assert seen == {"masks": 3}


def test_accumulation_is_one_ascent_from_the_mean_over_examples(feed):
    """Micro-batches of 6 and 2 examples, against one batch of 8."""
    whole, parts = GECO(bare, update=PaperUpdate(0.1)), GECO(bare, update=PaperUpdate(0.1))
    violation = torch.tensor([1.0, 2, 3, 4, 5, 6, 70, 80])
    x, knob = torch.zeros(8, 1), torch.zeros(8, requires_grad=True)
    for _ in range(3):
        whole(knob, x, x, constraint=violation + knob)
        whole.step()
        for part in (slice(0, 6), slice(6, 8)):
            parts(knob[part], x[part], x[part], constraint=(violation + knob)[part])
        parts.step()
        torch.testing.assert_close(parts.multipliers.table, whole.multipliers.table)
    assert whole.multipliers.table[2].item() == 3


def test_evaluation_touches_nothing(loop):
    objective = GECO(ReconstructionError(0.5))
    trained = loop(objective)
    trained.run(3)
    before = snapshot(objective)
    objective.eval()
    with torch.no_grad():
        for _ in range(3):
            x, noise = trained.batch()
            reconstruction, kl = trained.model(x, noise)
            loss = objective(kl, x, reconstruction)
            objective.step()
    assert not loss.requires_grad
    same(before, snapshot(objective))
    objective.train()
    with pytest.raises(RuntimeError, match="since the last step"):
        objective.step()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_violations_are_skipped_and_counted(feed, given, bad):
    objective = GECO({"a": given("a"), "b": given("b")})
    reference = GECO({"a": given("a"), "b": given("b")})
    for values in ([1.0, 1.0], [0.5, -0.5]):
        feed(objective, values)
        feed(reference, values)
    feed(objective, [bad, 0.3])
    feed(reference, [0.0, 0.3])
    # the healthy constraint ascends, the other one stays
    torch.testing.assert_close(
        objective.multipliers.table[:3, 1], reference.multipliers.table[:3, 1]
    )
    assert objective.info.skipped["a"].item() == 1
    assert objective.info.skipped["b"].item() == 0
    feed(objective, *[[1.0, 1.0]] * 5)
    assert objective.multipliers.table.isfinite().all()
    assert objective.multipliers.table[2].tolist() == [7.0, 8.0]
    assert "1 ascents skipped" in objective.report()


def test_an_ascent_between_forward_and_backward_spoils_nothing(loop):
    gradients = []
    for early in (False, True):
        objective = GECO(ReconstructionError(0.5))
        trained = loop(objective)
        x, noise = trained.batch()
        reconstruction, kl = trained.model(x, noise)
        loss = objective(kl, x, reconstruction)
        if early:
            objective.step()
        loss.backward()
        gradients.append([p.grad for p in trained.model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_copies_share_nothing(loop):
    objective = GECO({"re": ReconstructionError(0.5)})
    trained = loop(objective)
    trained.run(3)
    x, noise = trained.batch()
    reconstruction, kl = trained.model(x, noise)
    objective(kl, x, reconstruction)  # a graph is alive while it is copied
    before = snapshot(objective)
    twins = copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))
    for twin in twins:
        same(before, snapshot(twin))
        loop(twin).run(2)
    same(before, snapshot(objective))


def test_two_instances_share_nothing(feed):
    one, other = GECO(bare), GECO(bare)
    feed(one, 5.0, 5.0)
    assert other.info.relative_multiplier.item() == 1.0
    assert not list(one.parameters())


def test_kappa_may_follow_a_schedule(loop):
    objective = GECO(ReconstructionError(1.0))
    trained = loop(objective)
    trained.run(2)
    relative = objective.info.relative_multiplier
    objective.constraints["constraint"].kappa = 0.5
    torch.testing.assert_close(objective.info.relative_multiplier, relative)
    torch.testing.assert_close(objective.info.multiplier, relative / 0.25)
    trained.run(1)


class TestBadInput:
    def check(self, kind, match, *, kl=None, x=None, reconstruction=None, constraints=error):
        objective = GECO(constraints)
        before = snapshot(objective)
        x = torch.zeros(4, 3) if x is None else x
        if reconstruction is None:
            reconstruction = torch.zeros(4, 3, requires_grad=True)
        with pytest.raises(kind, match=match) as caught:
            objective(torch.zeros(4) if kl is None else kl, x, reconstruction)
        assert "\n" not in str(caught.value)
        same(before, snapshot(objective))

    def test_kl(self):
        self.check(ValueError, r"shape \(4,\), got \(4, 2\)", kl=torch.zeros(4, 2))
        self.check(ValueError, r"shape \(4,\), got \(\)", kl=torch.tensor(1.0))
        self.check(ValueError, r"shape \(4,\), got \(3,\)", kl=torch.zeros(3))
        self.check(TypeError, "`kl` must be a torch.Tensor, got float", kl=1.0)
        self.check(TypeError, "floating-point", kl=torch.zeros(4, dtype=torch.long))
        empty = torch.zeros(0, 3, requires_grad=True)
        self.check(ValueError, "empty", kl=torch.zeros(0), x=empty, reconstruction=empty)

    def test_data(self):
        self.check(
            ValueError, "same shape", x=torch.zeros(4, 2), constraints=ReconstructionError(0.1)
        )
        self.check(
            TypeError,
            "uint8",
            x=torch.zeros(4, 3, dtype=torch.uint8),
            constraints=ReconstructionError(0.1),
        )

    def test_violation(self):
        # a vector for a scalar, a scalar for a vector, a column: both shapes are named
        self.check(ValueError, r"\(4,\), but returned \(4, 3\)", constraints=lambda x, r: x - r)
        self.check(ValueError, r"\(4,\), but returned \(\)", constraints=lambda x, r: r.mean())
        self.check(ValueError, r"returned \(4, 1\)", constraints=lambda x, r: r[:, :1])
        self.check(TypeError, "must return a tensor", constraints=lambda x, r: 1.0)

    def test_no_gradient(self):
        self.check(RuntimeError, r"objective.eval\(\)", reconstruction=torch.zeros(4, 3))
        with torch.no_grad():
            self.check(RuntimeError, "'constraint' must depend on parameters")

    def test_step_without_loss(self):
        with pytest.raises(RuntimeError, match="call the objective first"):
            GECO(error).step()
        with pytest.raises(TypeError, match="`update`"):
            GECO(error, update=0.1)


def test_the_short_way_to_the_mean_is_the_mean(loop):
    """RE's mean over the batch, against the mean of its violations per example."""

    class Detour(ReconstructionError):  # noqa: N818 (not an exception)
        """A subclass: takes the long way."""

    short, long = GECO(ReconstructionError(0.3)), GECO(Detour(0.3))
    for one, other in zip(loop(short).run(5), loop(long).run(5), strict=True):
        torch.testing.assert_close(one, other)
    x, seen = torch.rand(4, 3), []
    masked = GECO(ReconstructionError(0.3))
    masked.constraints["constraint"].register_forward_hook(lambda *call: seen.append(call))
    reconstruction = torch.rand(4, 3, requires_grad=True)
    mask = torch.tensor([[True, False, True]] * 4)
    masked(torch.rand(4), x, reconstruction, mask=mask)
    expected = (x - reconstruction)[:, [0, 2]].square().mean() - 0.09
    torch.testing.assert_close(masked.info.constraint, expected.detach())
    assert len(seen) == 1
    masked(torch.rand(4), x, reconstruction)
    assert len(seen) == 2


def test_an_objective_elsewhere_is_told():
    objective = GECO(error).to("meta")
    with pytest.raises(ValueError, match=r"objective.to\('cpu'\)"):
        objective(torch.rand(2), torch.rand(2, 1), torch.rand(2, 1, requires_grad=True))
