"""One multiplier per group: the same as the constraint alone on each group's examples."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from geco_core import GECO, BestFeasible, ClassificationAccuracy, PerGroup, ReconstructionError


def test_each_group_ascends_on_its_own_mean():
    """Against an objective per group that sees the group's examples alone."""
    generator = torch.Generator().manual_seed(0)
    objective = GECO(PerGroup(ReconstructionError(0.5), groups=3))
    alone = [GECO(ReconstructionError(0.5)) for _ in range(3)]
    for _ in range(20):
        x = torch.randn(12, 4, generator=generator)
        groups = torch.randint(0, 2, (12,), generator=generator)  # the last is never there
        g = (0.5 * x).requires_grad_()
        objective(torch.ones(12), x, g, groups=groups)
        objective.step()
        for index in (0, 1):
            here = groups == index
            alone[index](torch.ones(int(here.sum())), x[here], g[here])
            alone[index].step()
    for index in range(3):
        torch.testing.assert_close(
            objective.multipliers.table[:, index], alone[index].multipliers.table[:, 0]
        )
    info = objective.info
    assert info.multiplier.shape == (3,)
    assert info.moving_average[2].isnan()
    assert not info.skipped.any()
    assert "never seen" in objective.report()
    assert BestFeasible().offer({}, objective)


def test_the_loss_is_the_mean_over_examples_of_their_own_multipliers():
    objective = GECO({"RE": PerGroup(ReconstructionError(1.0), groups=2)})
    with torch.no_grad():
        objective.multipliers.table[0] = torch.tensor([1.0, 2.0])
        objective.multipliers.table[2] = 1.0  # ascents: the multipliers are in use
    x = torch.zeros(3, 2)
    g = torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 2).clone().requires_grad_()
    groups = torch.tensor([0, 1, 1])
    loss = objective(torch.zeros(3), x, g, groups=groups)
    (gradient,) = torch.autograd.grad(loss, g)
    multiplier = torch.tensor([1.0, 2.0])[groups]
    expected = multiplier[:, None] * g.detach() / 3
    ratio = gradient / expected  # the division by all weights is one number
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))


def test_micro_batches_are_one_batch():
    whole, parts = (GECO(PerGroup(ReconstructionError(0.5), groups=2)) for _ in range(2))
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    groups = torch.tensor([0, 0, 0, 1, 0, 1, 1, 0])
    g = torch.zeros(8, 3, requires_grad=True)
    whole(torch.ones(8), x, g, groups=groups)
    for part in (slice(0, 3), slice(3, 8)):
        parts(torch.ones(8)[part], x[part], g[part], groups=groups[part])
    whole.step()
    parts.step()
    torch.testing.assert_close(parts.multipliers.table, whole.multipliers.table)


class Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_a_thousand_groups_take_the_operations_of_one():
    counts = []
    for groups in (1, 1000):
        objective = GECO(PerGroup(ReconstructionError(0.5), groups=groups))
        x, g = torch.zeros(8, 3), torch.ones(8, 3, requires_grad=True)
        with Count() as count:
            objective(torch.ones(8), x, g, groups=torch.zeros(8, dtype=torch.long)).backward()
            objective.step()
        counts.append(count.calls)
    assert counts[0] == counts[1]


def test_other_constraints_keep_their_own_examples():
    """Unlabelled examples do not count in their groups."""
    classifier = torch.nn.Linear(3, 2)
    objective = GECO(PerGroup(ClassificationAccuracy(0.9, classifier), groups=2))
    x, g = torch.zeros(4, 3), torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, -100, 1, -100])
    groups = torch.tensor([0, 0, 1, 1])
    objective(torch.ones(4), x, g, groups=groups, labels=labels)
    alone = ClassificationAccuracy(0.9, classifier)(x, g, labels=labels.clamp(min=0))
    torch.testing.assert_close(objective.info.constraint, alone[[0, 2]].detach())


def test_states_and_bad_input():
    objective = GECO(PerGroup(ReconstructionError(0.5), groups=2))
    x, g = torch.zeros(2, 3), torch.ones(2, 3, requires_grad=True)
    with pytest.raises(ValueError, match="`groups` is missing"):
        objective(torch.ones(2), x, g)
    with pytest.raises(ValueError, match="from 0 to 1, got values from 0 to 2"):
        objective(torch.ones(2), x, g, groups=torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(2, 1\)"):
        objective(torch.ones(2), x, g, groups=torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(TypeError, match="integers"):
        objective(torch.ones(2), x, g, groups=torch.zeros(2))
    with pytest.raises(ValueError, match="build the objective as it was"):
        GECO(PerGroup(ReconstructionError(0.5), groups=3)).load_state_dict(objective.state_dict())
    with pytest.raises(TypeError, match="whole number"):
        PerGroup(ReconstructionError(0.5), groups=2.5)
