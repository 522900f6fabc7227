"""Several named constraints under one objective: their keywords, their optimum, their graph."""

import math

import pytest
import torch
from torch import nn

from geco_core import (
    GECO,
    CallableConstraint,
    ClassificationAccuracy,
    FeatureReconstructionError,
    LocalMoments,
    PatchCrossCorrelation,
    ReconstructionError,
)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 1, 8, 8, generator=generator)
    reconstruction = torch.rand(4, 1, 8, 8, generator=generator).requires_grad_()
    kl = torch.rand(4, generator=generator).requires_grad_()
    mask = torch.rand(4, 1, 8, 8, generator=generator) > 0.3
    return kl, x, reconstruction, torch.tensor([0, 1, 2, 1]), mask


def constraints():
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    return {
        "RE": ReconstructionError(0.1),
        "FRE": FeatureReconstructionError(0.05, LocalMoments(4)),
        "CLA": ClassificationAccuracy(0.9, classifier),
        "PNCC": PatchCrossCorrelation(0.8, 4),
    }


def test_every_constraint_gets_its_keywords(batch):
    kl, x, reconstruction, labels, mask = batch
    objective = GECO(constraints())
    objective(kl, x, reconstruction, labels=labels, mask=mask)
    expected = {
        name: constraint(x, reconstruction, labels=labels, mask=mask).mean()
        for name, constraint in objective.constraints.items()
    }
    alone = ReconstructionError(0.1)(x, reconstruction, mask=mask).mean()
    torch.testing.assert_close(expected["RE"], alone)
    assert list(objective.info.constraint) == ["RE", "FRE", "CLA", "PNCC"]
    for name, value in objective.info.constraint.items():
        torch.testing.assert_close(value, expected[name].detach(), msg=name)


def test_labels_are_asked_for_by_name(batch):
    kl, x, reconstruction, *_ = batch
    with pytest.raises(ValueError, match="`labels` is missing"):
        GECO(constraints())(kl, x, reconstruction)


def test_a_violation_per_element_names_the_constraint_and_both_shapes(batch):
    kl, x, reconstruction, *_ = batch
    wrong = {"RE": ReconstructionError(0.1), "mine": lambda x, g: (x - g).square().flatten(1)}
    with pytest.raises(ValueError, match=r"'mine'.*\(4,\).*\(4, 64\)"):
        GECO(wrong)(kl, x, reconstruction)


def test_one_graph_holds_all_of_them(batch):
    kl, x, reconstruction, labels, mask = batch
    eager = GECO(constraints()).eval()
    compiled = torch.compile(GECO(constraints()).eval(), fullgraph=True, backend="eager")
    one = eager(kl, x, reconstruction, labels=labels, mask=mask)
    two = compiled(kl, x, reconstruction, labels=labels, mask=mask)
    torch.testing.assert_close(one, two)


def test_tolerances_travel_with_the_objective():
    first, second = GECO(constraints()), GECO(constraints())
    first.constraints["CLA"].kappa = 0.6
    second.load_state_dict(first.state_dict())
    assert second.constraints["CLA"].kappa == 0.6


def blocks(seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))


def test_multipliers_of_two_active_and_one_slack_constraint_are_the_exact_ones():
    r"""minimise |w|^2 / 2 subject to mean (x_b - w_b)^2 <= kappa_b^2 on three blocks.

    On a block of n elements w = (1 - sqrt(n) kappa / |x|) x and
    lambda = n / 2 (|x| - sqrt(n) kappa) / (sqrt(n) kappa); the third kappa is wider than |x|.
    """
    x = blocks()
    kappas = [0.5, 1.2, 10.0]

    def on_block(index: int, kappa: float) -> CallableConstraint:
        error = ReconstructionError(kappa)

        def violation(x, reconstruction):
            return error(x[:, index], reconstruction[:, index])

        return CallableConstraint(violation, scale=error.scale, reduction=error.reduction)

    weights = torch.zeros(3, 4, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000, 2e-4)
    objective = GECO({f"block{i}": on_block(i, kappa) for i, kappa in enumerate(kappas)})
    for _ in range(2000):
        cost = weights.square().sum() / 2
        objective(cost.reshape(1), x[None], weights[None]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        objective.step()

    info = objective.info
    for index, kappa in enumerate(kappas[:2]):
        norm, radius = x[index].norm().item(), 2 * kappa
        exact = (1 - radius / norm) * x[index]
        torch.testing.assert_close(weights[index].detach(), exact, rtol=0.01, atol=0.01)
        multiplier = 2 * (norm - radius) / radius
        assert info.multiplier[f"block{index}"].item() == pytest.approx(multiplier, rel=0.03)
        assert math.isclose(
            (x[index] - weights[index]).square().mean().sqrt().item(), kappa, rel_tol=0.01
        )
    assert weights[2].abs().max() < 0.01
    assert info.feasible["block2"]
    assert info.multiplier["block2"] * kappas[2] ** 2 < 1e-3
