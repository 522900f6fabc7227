"""What every constraint promises, whichever it is."""

import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from geco_core.constraints import (
    ClassificationAccuracy,
    FeatureReconstructionError,
    PatchCrossCorrelation,
    ReconstructionError,
)
from geco_core.constraints.frozen import Frozen


def violations(constraint, x, reconstruction, labels):
    return constraint(x, reconstruction, labels=labels, something_else=object())


def test_one_violation_per_example_and_a_gradient_for_the_reconstruction_alone(make, images):
    x, reconstruction, labels = images
    constraint = make(0.5)
    violation = violations(constraint, x, reconstruction, labels)
    assert violation.shape == (3,)
    violation.sum().backward()
    assert reconstruction.grad.isfinite().all()
    assert (reconstruction.grad != 0).any()
    assert [n for n, p in constraint.named_parameters() if p.grad is not None] == []


def test_examples_do_not_see_each_other(make, images):
    x, reconstruction, labels = images
    constraint = make(0.5)
    together = violations(constraint, x, reconstruction, labels)
    apart = [
        violations(constraint, x[i : i + 1], reconstruction[i : i + 1], labels[i : i + 1])
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_summed_in_float32(make, images, dtype):
    x, reconstruction, labels = images
    x, reconstruction = x.to(dtype), reconstruction.detach().to(dtype).requires_grad_()
    constraint = make(0.5)
    violation = violations(constraint, x, reconstruction, labels)
    assert violation.dtype == torch.float32
    exact = violations(constraint, x.float(), reconstruction.float(), labels)
    torch.testing.assert_close(violation, exact)
    violation.sum().backward()
    assert reconstruction.grad.dtype == dtype
    assert reconstruction.grad.isfinite().all()


def test_autocast_changes_only_the_users_network(make, images):
    x, reconstruction, labels = images
    constraint = make(0.5)
    exact = violations(constraint, x, reconstruction, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        violation = violations(constraint, x, reconstruction, labels)
    assert violation.dtype == torch.float32
    has_network = any(
        isinstance(m, Frozen) and any(True for _ in m.network.parameters())
        for m in constraint.modules()
    )
    assert not list(constraint.parameters())
    torch.testing.assert_close(
        violation, exact, atol=2e-2 if has_network else 0, rtol=0 if has_network else 1e-6
    )
    violation.sum().backward()
    assert reconstruction.grad.isfinite().all()


def test_float64_stays_float64_and_passes_gradcheck(make, images):
    x, reconstruction, labels = images
    constraint = make(0.5).double()
    inputs = reconstruction.detach()[:2, :, :5, :5].double().requires_grad_()
    x = x[:2, :, :5, :5].double()
    assert violations(constraint, x, inputs, labels[:2]).dtype == torch.float64
    assert torch.autograd.gradcheck(
        lambda g: violations(constraint, x, g, labels[:2]), (inputs,), fast_mode=True
    )


def test_the_whole_constraint_compiles_to_one_graph(make, images):
    x, reconstruction, labels = images
    constraint = make(0.5)
    eager = violations(constraint, x, reconstruction, labels)
    compiled = torch.compile(constraint, fullgraph=True, backend="eager")
    violation = compiled(x, reconstruction, labels=labels)
    torch.testing.assert_close(violation, eager)
    expected = torch.autograd.grad(eager.sum(), reconstruction)[0]
    torch.testing.assert_close(torch.autograd.grad(violation.sum(), reconstruction)[0], expected)
    constraint.kappa = 0.25  # a schedule reaches the compiled code
    torch.testing.assert_close(
        compiled(x, reconstruction, labels=labels),
        violations(constraint, x, reconstruction, labels),
    )


def test_memory_layout_makes_no_difference(make, images):
    x, reconstruction, labels = images
    last = [value.contiguous(memory_format=torch.channels_last) for value in (x, reconstruction)]
    constraint = make(0.5)
    torch.testing.assert_close(
        violations(constraint, *last, labels), violations(constraint, x, reconstruction, labels)
    )


def test_no_value_is_read_by_the_host(make, images):
    x, reconstruction, labels = images
    constraint = make(0.5)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = [mode.from_tensor(value) for value in (x, reconstruction, labels)]
        violation = violations(constraint, *fake)
        with pytest.raises(DataDependentOutputException):
            bool(violation[0] > 0)  # what the trace would have caught
    assert violation.shape == (3,)
    meta = violations(make(0.5).to("meta"), x.to("meta"), x.to("meta"), labels.to("meta"))
    assert meta.device.type == "meta"


def test_meets_its_state_again_and_keeps_its_tolerance(make, images, caplog):
    x, reconstruction, labels = images
    saved = io.BytesIO()
    first = make(0.3)
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = make(0.6)
    second.load_state_dict(torch.load(saved, weights_only=True))
    assert second.kappa == 0.3
    assert "sets kappa to 0.3 (it was 0.6)" in caplog.text
    assert torch.equal(
        violations(second, x, reconstruction, labels), violations(first, x, reconstruction, labels)
    )


def test_copies_and_mode_changes_leave_the_violation_alone(make, images):
    x, reconstruction, labels = images
    constraint = make(0.5)
    expected = violations(constraint, x, reconstruction, labels)
    duplicate = copy.deepcopy(constraint)
    for mode in (True, False):
        nn.ModuleDict({"a": duplicate}).train(mode)
        assert torch.equal(violations(duplicate, x, reconstruction, labels), expected)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([float("nan"), float("inf"), 0.0, -0.1, -float("inf")]))
def test_refuses_a_kappa_that_cannot_be_met(kappa):
    for kind in (ReconstructionError, PatchCrossCorrelation):
        with pytest.raises(ValueError, match=f"`kappa` of {kind.__name__}.*got"):
            kind(kappa)


def test_kappa_is_validated_when_it_is_set_too(make):
    constraint = make(0.5)
    for wrong in ("0.1", None, True, torch.tensor(0.1)):
        with pytest.raises(TypeError, match=r"`kappa`.*must be a number"):
            constraint.kappa = wrong
    with pytest.raises(ValueError, match="`kappa`"):
        constraint.kappa = 0
    limit = constraint.kappa_limit
    if limit < float("inf"):
        with pytest.raises(ValueError, match="between 0 and 1"):
            constraint.kappa = limit
    assert constraint.kappa == 0.5
    assert constraint.scale > 0


def test_bad_images_are_named(make, images):
    x, reconstruction, labels = images
    constraint = make(0.5)
    with pytest.raises(TypeError, match=r"`x` must have a floating-point dtype.*uint8.*255"):
        violations(constraint, (255 * x).byte(), reconstruction, labels)
    with pytest.raises(TypeError, match="`reconstruction` must have a floating-point dtype"):
        violations(constraint, x, reconstruction.long(), labels)
    with pytest.raises(TypeError, match=r"`reconstruction` must be a torch.Tensor, got NoneType"):
        violations(constraint, x, None, labels)
    with pytest.raises(ValueError, match=r"same shape, got \(3, 2, 7, 8\) and \(1, 2, 7, 8\)"):
        violations(constraint, x, reconstruction[:1], labels)
    with pytest.raises(ValueError, match="at least one element per example"):
        violations(constraint, x[:, :0], reconstruction[:, :0], labels)


def test_an_empty_batch_is_an_empty_answer(make, images):
    x, reconstruction, labels = images
    assert violations(make(0.5), x[:0], reconstruction[:0], labels[:0]).shape == (0,)


def test_says_what_it_is(make):
    text = repr(make(0.5))
    assert "kappa=0.5" in text
    assert "reduction=" in text
    assert make(0.5).reduction in text


@pytest.mark.parametrize("kind", [FeatureReconstructionError, ClassificationAccuracy])
def test_the_users_network_is_left_as_it_was(kind, network, images):
    x, reconstruction, labels = images
    network.train()
    before = copy.deepcopy(network.state_dict())
    constraint = kind(0.5, network).train()
    violation = violations(constraint, x, reconstruction, labels)
    violation.sum().backward()
    assert network.training
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with torch.no_grad():  # and what happens to it later has no effect
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(violations(constraint, x, reconstruction, labels), violation)


@pytest.mark.parametrize("kind", [FeatureReconstructionError, ClassificationAccuracy])
def test_networks_that_cannot_work_are_named(kind, network, images):
    x, reconstruction, labels = images
    for wrong in (None, 3, nn.Linear):
        with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module or another callable"):
            kind(0.5, wrong)
    blind = torch.no_grad()(network.eval().forward)
    with pytest.raises(RuntimeError, match="stops the gradient of the reconstruction"):
        violations(kind(0.5, blind), x, reconstruction, labels)
    with torch.no_grad():  # an evaluation needs no gradient
        assert violations(kind(0.5, blind), x, reconstruction, labels).shape == (3,)
    with pytest.raises(TypeError, match=r"must return floating-point tensors.*torch.int64"):
        violations(kind(0.5, lambda g: g.long()), x, reconstruction, labels)
    with pytest.raises(ValueError, match=r"batch of 3 examples as the first axis.*\(2, 3"):
        violations(kind(0.5, lambda g: g.transpose(0, 1)), x, reconstruction, labels)
    with pytest.raises(ValueError, match="at least one tensor"):
        violations(kind(0.5, lambda g: ()), x, reconstruction, labels)
