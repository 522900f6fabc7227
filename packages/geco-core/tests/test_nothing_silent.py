"""Mistakes and gaps that must not pass unnoticed."""

import copy
import logging
import math
import pickle

import pytest
import torch
from torch import distributed as dist
from torch import nn

from geco_core import (
    ELBO,
    GECO,
    AnnealedELBO,
    ClassificationAccuracy,
    FeatureReconstructionError,
    LocalMoments,
    PatchCrossCorrelation,
    PerGroup,
    ReconstructionError,
)
from geco_core.objectives import FORGOTTEN_AFTER


def test_a_forgotten_step_is_said_once_and_nothing_grows(loop, caplog):
    objective = GECO(ReconstructionError(0.5))
    x, g = torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True)
    for _ in range(2 * FORGOTTEN_AFTER):
        objective(torch.ones(2), x, g)
    (pending,) = objective._pending
    assert pending.examples == 4 * FORGOTTEN_AFTER
    assert caplog.text.count("without objective.step()") == 1
    assert f"{2 * FORGOTTEN_AFTER} losses since the last ascent" in objective.report()
    objective.step()
    assert "since the last ascent" not in objective.report()
    torch.testing.assert_close(objective.info.moving_average, torch.tensor(0.75))


def test_skipped_ascents_are_said_once(feed, caplog):
    objective = GECO(lambda x, r, constraint: constraint)
    with caplog.at_level(logging.WARNING):
        feed(objective, *[0.1] * 10, *[math.nan] * 200)
        objective.report()
    (record,) = [r for r in caplog.records if "skipped" in r.getMessage()]
    assert "'constraint'" in record.getMessage()
    assert "KL" in record.getMessage()


class TestWhatWasNotObserved:
    """The tolerance speaks of what was observed."""

    @pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
    @pytest.mark.parametrize("shape", [(10, 1, 1, 1), (10, 1, 8, 8)])
    def test_masks(self, share, shape):
        x = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        observed = torch.arange(10) < 10 * share
        mask = observed.reshape(10, 1, 1, 1).expand(shape)
        x[~observed] = torch.nan
        g = torch.rand(10, 1, 8, 8).requires_grad_()
        constraints = {
            "RE": ReconstructionError(0.1),
            "FRE": FeatureReconstructionError(0.1, LocalMoments(4)),
            "PNCC": PatchCrossCorrelation(0.8, 4),
        }
        objective = GECO(constraints)
        loss = objective(torch.ones(10), x, g, mask=mask)
        (gradient,) = torch.autograd.grad(loss, g)
        assert gradient.isfinite().all()
        assert (gradient[~observed] == 0).all()
        for name, value in objective.info.constraint.items():
            alone = constraints[name](x[observed], g[observed]).mean()
            torch.testing.assert_close(value, alone.detach(), msg=name)

    def test_a_batch_without_data_moves_nothing_and_is_no_error(self):
        objective = GECO({"RE": ReconstructionError(0.1), "other": ReconstructionError(0.2)})
        x, g = torch.zeros(4, 3), torch.ones(4, 3, requires_grad=True)
        objective(torch.ones(4), x, g)
        objective.step()
        before = objective.multipliers.table.clone()
        mask = torch.zeros(4, 1, dtype=torch.bool)
        loss = objective(torch.ones(4), x * torch.nan, g, mask=mask)
        objective.step()
        assert loss.isfinite()
        assert torch.equal(objective.multipliers.table, before)

    def test_micro_batches_are_weighted_by_what_was_observed(self):
        whole, parts = (GECO(ReconstructionError(0.5)) for _ in range(2))
        x = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
        g = torch.zeros(6, 2, requires_grad=True)
        mask = torch.tensor([1, 0, 0, 1, 1, 1]).bool()[:, None]
        whole(torch.ones(6), x, g, mask=mask)
        for part in (slice(0, 3), slice(3, 6)):
            parts(torch.ones(3), x[part], g[part], mask=mask[part])
        whole.step()
        parts.step()
        torch.testing.assert_close(parts.multipliers.table, whole.multipliers.table)

    def test_one_weight_per_example_in_either_shape(self):
        x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
        g = torch.zeros(4, 3, requires_grad=True)
        weights = torch.tensor([1.0, 0.0, 3.0, 1.0])
        squares = x.square().mean(1)
        expected = (squares * weights).sum() / weights.sum() - 0.01
        for shape in ((4,), (4, 1)):
            objective = GECO(ReconstructionError(0.1))
            objective(torch.ones(4), x, g, weights=weights.reshape(shape))
            torch.testing.assert_close(objective.info.constraint, expected)

    @pytest.mark.parametrize("one_hot", [False, True])
    def test_labels(self, one_hot):
        torch.manual_seed(0)
        constraint = ClassificationAccuracy(0.9, nn.Linear(3, 4))
        x, g = torch.zeros(4, 3), torch.randn(4, 3, requires_grad=True)
        labels = torch.tensor([0, -100, 3, -100])
        alone = constraint(x[::2], g[::2], labels=labels[::2]).mean()
        if one_hot:
            labels = nn.functional.one_hot(labels.clamp(min=0), 4) * (labels >= 0)[:, None]
        objective = GECO(constraint)
        loss = objective(torch.ones(4), x, g, labels=labels)
        torch.testing.assert_close(objective.info.constraint, alone.detach())
        (gradient,) = torch.autograd.grad(loss, g)
        assert (gradient[1::2] == 0).all()

    def test_labels_of_some_locations(self):
        constraint = ClassificationAccuracy(0.9, nn.Conv1d(2, 3, 1))
        x, g = torch.zeros(2, 2, 5), torch.randn(2, 2, 5, requires_grad=True)
        labels = torch.tensor([[0, 1, -100, -100, 2], [-100] * 5])
        objective = GECO(constraint)
        objective(torch.ones(2), x, g, labels=labels)
        known = labels[0] != -100
        alone = constraint(x[:1, :, known], g[:1, :, known], labels=labels[:1, known]).mean()
        torch.testing.assert_close(objective.info.constraint, alone.detach())


@pytest.mark.parametrize("magnitude", [1e-30, 1e-3, 1.0, 255.0, 1e10, 1e19, 1e30, 3e38])
def test_correlations_of_images_of_any_magnitude(magnitude):
    generator = torch.Generator().manual_seed(0)
    x, g = (2 * torch.rand(2, 1, 8, 8, generator=generator) - 1 for _ in range(2))
    constraint = PatchCrossCorrelation(0.8, 4, eps=1e-3 * magnitude)
    if magnitude == 1e-30:
        constraint = PatchCrossCorrelation(0.8, 4, eps=1e-18)  # its square is a float32
        x, g = 1e-12 * x, 1e-12 * g
        magnitude = 1.0
    scaled = (magnitude * g).requires_grad_()
    violation = constraint(magnitude * x, scaled)
    exact = PatchCrossCorrelation(0.8, 4, eps=constraint.eps / magnitude)(x.double(), g.double())
    torch.testing.assert_close(violation.double(), exact, rtol=1e-4, atol=1e-4)
    violation.sum().backward()
    assert scaled.grad.isfinite().all()
    same = constraint(magnitude * x, (magnitude * x).requires_grad_())
    torch.testing.assert_close(same, torch.full((2,), -0.2))
    flat = constraint(torch.full_like(x, magnitude), torch.full_like(x, magnitude))
    torch.testing.assert_close(flat, torch.full((2,), -0.2))


class TestMeta:
    """Built without memory, then loaded or given some."""

    def made(self, make):
        with torch.device("meta"):
            return make()

    def use(self, objective):
        x, g = torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True)
        return objective(torch.ones(2), x, g)

    @pytest.mark.parametrize(
        "make", [lambda: GECO(ReconstructionError(0.5)), ELBO, lambda: AnnealedELBO(2.0, 1.0, 9)]
    )
    def test_right_whichever_way(self, make):
        reference = make()
        self.use(reference)
        reference.step()
        assigned, emptied, fresh = (self.made(make) for _ in range(3))
        assigned.load_state_dict(reference.state_dict(), assign=True)
        emptied.to_empty(device="cpu")
        emptied.load_state_dict(reference.state_dict())
        fresh.to_empty(device="cpu")
        expected = self.use(reference)
        assert self.use(assigned) == expected
        assert self.use(emptied) == expected
        assert self.use(fresh) == self.use(make())

    def test_or_a_clear_error(self):
        with pytest.raises(ValueError, match="built on the meta device; call objective"):
            self.use(self.made(lambda: GECO(ReconstructionError(0.5))))


def test_copies_and_pickles_with_a_process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        objective = GECO(ReconstructionError(0.5), process_group=dist.new_group([0]))
        assert copy.deepcopy(objective).process_group is objective.process_group
        twin = pickle.loads(pickle.dumps(objective))
        x, g = torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True)
        with pytest.raises(RuntimeError, match="set `process_group`"):
            twin(torch.ones(2), x, g)
        twin.process_group = objective.process_group
        twin(torch.ones(2), x, g)
    finally:
        dist.destroy_process_group()


def test_states_hold_tensors_only_and_those_of_the_first_version_load():
    objective = GECO({"RE": ReconstructionError(0.3), "g": PerGroup(ReconstructionError(0.2), 3)})
    state = objective.state_dict()
    assert all(type(value) is torch.Tensor for value in state.values())
    assert all(value.is_contiguous() for value in state.values())
    old = GECO({"RE": ReconstructionError(0.5)})
    first_version = {
        "_extra_state": {
            "constraints": ["RE"],
            "update": "RobustUpdate",
            "rows": [*old.multipliers.update.rows],
        },
        "constraints.RE._extra_state": {
            "kind": "ReconstructionError",
            "kappa": 0.25,
            "reduction": "mean over the elements of an example",
        },
        "multipliers.table": torch.full_like(old.multipliers.table, 2.0),
    }
    old.load_state_dict(first_version)
    assert old.constraints["RE"].kappa == 0.25
    assert (old.multipliers.table == 2.0).all()


def test_an_average_over_the_values_of_states_can_be_loaded(loop):
    """As loops for moving averages of weights do it, whatever the entry is."""
    objective = GECO(ReconstructionError(0.5))
    average = {key: value.clone() for key, value in objective.state_dict().items()}
    loop(objective).run(5)
    for key, value in objective.state_dict().items():
        average[key].mul_(0.9).add_(value, alpha=0.1)
    GECO(ReconstructionError(0.5)).load_state_dict(average)


def test_data_may_be_anything():
    x = {"rna": torch.rand(8, 5), "graph": (torch.rand(30, 7), [torch.rand(2)])}
    g = {"rna": torch.rand(8, 5, requires_grad=True), "none": None}

    def error(x, reconstruction):
        return (x["rna"] - reconstruction["rna"]).square().mean(1) - 0.01

    objective = GECO({"a": error, "b": lambda x, r: r["rna"].mean(1)})
    objective(torch.ones(8), x, g).backward()
    objective.step()
    assert objective.info.beta["a"].isfinite()
    knob = torch.zeros(3, requires_grad=True)
    for data in (None, [1], "text", torch.rand(30, 7), torch.tensor(1.0)):
        GECO(lambda x, r: knob)(torch.ones(3), data, None)
    with pytest.raises(TypeError, match=r"`x` must be a torch\.Tensor, got NoneType"):
        GECO(ReconstructionError(0.1))(torch.ones(3), None, knob)


def test_metrics_are_flat_numbers(loop):
    bare, named = GECO(ReconstructionError(0.5)), GECO({"RE": ReconstructionError(0.5)})
    for objective in (bare, named):
        loop(objective).run(3)
    one, other = bare.metrics(), named.metrics()
    assert set(one) == {
        "loss",
        "kl",
        "violation",
        "moving_average",
        "multiplier",
        "relative_multiplier",
        "beta",
        "feasible",
        "saturated",
        "skipped",
    }
    assert all(type(value) is float for value in one.values())
    assert {key.removeprefix("RE/"): value for key, value in other.items()} == one
    assert one["multiplier"] == pytest.approx(bare.info.multiplier.item())
    grouped = GECO({"g": PerGroup(ReconstructionError(0.5), 3)})
    x, g = torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True)
    grouped(torch.ones(2), x, g, groups=torch.tensor([0, 1]))
    grouped.step()
    assert grouped.metrics()["g/moving_average/highest"] == 0.75
    assert set(ELBO().metrics()) == {"loss", "kl", "beta"}


def test_a_report_before_the_first_ascent_says_so():
    objective = GECO({"RE": ReconstructionError(0.1), "constraint": lambda x, r: r.sum(1)})
    assert objective.report() == "RE: no ascent yet\nconstraint: no ascent yet"
