import pytest
import torch
from torch import nn

from geco_core.constraints import PatchCrossCorrelation, ReconstructionError, ToleranceConstraint
from geco_core.text_state import facts_of


def test_a_numpy_number_or_an_integer_is_a_number():
    numpy = pytest.importorskip("numpy", reason="numpy is no dependency of this package")
    assert ReconstructionError(1).kappa == 1.0
    kappa = ReconstructionError(numpy.float32(0.5)).kappa
    assert kappa == 0.5
    assert type(kappa) is float


def test_a_state_keeps_every_digit_whatever_the_dtype_of_the_module():
    kappa = 0.1 + 1e-15
    constraint = nn.ModuleDict({"a": ReconstructionError(kappa)}).half()
    other = nn.ModuleDict({"a": ReconstructionError(0.2)})
    other.load_state_dict(constraint.state_dict())
    assert other["a"].kappa == kappa


def test_the_same_state_again_is_loaded_in_silence(caplog):
    constraint = ReconstructionError(0.1)
    constraint.load_state_dict(constraint.state_dict())
    assert caplog.text == ""


def test_states_of_something_else_are_refused():
    state = ReconstructionError(0.1).state_dict()
    with pytest.raises(ValueError, match="saved with kind 'ReconstructionError'"):
        PatchCrossCorrelation(0.5).load_state_dict(state)
    with pytest.raises(ValueError, match=r"saved with reduction 'mean over patches of \(8,\)"):
        PatchCrossCorrelation(0.5, 4).load_state_dict(PatchCrossCorrelation(0.5).state_dict())
    with pytest.raises(ValueError, match="must hold kind, kappa, reduction"):
        ReconstructionError(0.1).load_state_dict({"_extra_state": 0.1})
    broken = {"_extra_state": {**facts_of(state["_extra_state"]), "kappa": float("nan")}}
    constraint = ReconstructionError(0.1)
    with pytest.raises(ValueError, match="`kappa`"):
        constraint.load_state_dict(broken)
    assert constraint.kappa == 0.1
    with pytest.raises(RuntimeError, match="Missing key"):
        constraint.load_state_dict({})


def test_a_constraint_of_ones_own_needs_a_scale_and_a_forward():
    class Sparsity(ToleranceConstraint):
        """The mean absolute value of the reconstruction is at most kappa."""

        reduction = "mean over elements"

        @property
        def scale(self) -> float:
            return self.kappa

        def forward(self, x, reconstruction, **batch):
            return reconstruction.abs().flatten(1).mean(1) - self.kappa

    constraint = Sparsity(0.25)
    assert constraint(None, torch.ones(3, 2)).tolist() == [0.75] * 3
    assert facts_of(constraint.state_dict()["_extra_state"])["kind"] == "Sparsity"
