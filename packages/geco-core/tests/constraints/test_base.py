"""How constraints are given."""

import pytest
import torch
from torch import nn

from geco_core import GECO, CallableConstraint, ReconstructionError
from geco_core.constraints.base import as_constraint, named_constraints


def error(x, reconstruction):
    return (x - reconstruction).square().mean(1) - 1


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, reconstruction):
        return self.weight * error(x, reconstruction)


def test_ways_to_give_them():
    for given in (error, ReconstructionError(1.0), Module()):
        bare, named = named_constraints(given)
        assert bare
        assert list(named) == ["constraint"]
    pairs = [("a", error), ("b", ReconstructionError(1.0))]
    for given in (pairs, dict(pairs), nn.ModuleDict({"b": ReconstructionError(1.0)})):
        bare, named = named_constraints(given)
        assert not bare
        assert list(named) in (["a", "b"], ["b"])


@pytest.mark.parametrize(
    ("given", "kind", "match"),
    [
        ({}, ValueError, "empty"),
        ([], ValueError, "empty"),
        ([("a", error), ("a", error)], ValueError, "'a' twice"),
        ({"a.b": error}, ValueError, "without dots"),
        ({"": error}, ValueError, "non-empty"),
        ({"keys": error}, ValueError, "'keys'"),
        ({1: error}, ValueError, "strings"),
        ({"a": 0.1}, TypeError, "0.1"),
        ({"a": ReconstructionError}, TypeError, "instance"),
        (0.1, TypeError, "0.1"),
        ([error], TypeError, "pairs"),
    ],
)
def test_what_is_refused(given, kind, match):
    with pytest.raises(kind, match=match):
        GECO(given)


def test_callables_get_the_keywords_that_they_name():
    x = torch.zeros(2, 1)
    assert as_constraint(error)(x, x, labels=1, mask=2).tolist() == [-1.0, -1.0]
    everything = as_constraint(lambda x, r, **batch: torch.tensor([len(batch)] * 2))
    assert everything(x, x, labels=1, mask=2).tolist() == [2, 2]
    assert as_constraint(torch.nn.functional.mse_loss).scale == 1.0


def test_modules_bring_their_parameters():
    objective = GECO(Module())
    assert [name for name, _ in objective.named_parameters()] == [
        "constraints.constraint.function.weight"
    ]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_scale(scale):
    with pytest.raises(ValueError, match="`scale`"):
        CallableConstraint(error, scale=scale)
    with pytest.raises(TypeError, match="`function`"):
        CallableConstraint(scale)
