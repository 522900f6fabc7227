"""One graph without breaks, and nothing that waits for the device."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from geco_core import (
    ELBO,
    GECO,
    AnnealedELBO,
    ClassificationAccuracy,
    CyclicalELBO,
    Equality,
    OptimalSigmaELBO,
    PaperUpdate,
    PatchCrossCorrelation,
    PerGroup,
    Rate,
    ReconstructionError,
    SetPointELBO,
)

OBJECTIVES = {
    "robust": lambda: GECO(ReconstructionError(0.5)),
    "paper": lambda: GECO(ReconstructionError(0.5), update=PaperUpdate(0.05)),
    "several": lambda: GECO({"a": ReconstructionError(0.5), "b": ReconstructionError(0.9)}),
    "equality": lambda: GECO(Equality(ReconstructionError(0.5))),
    "elbo": ELBO,
    "optimal": OptimalSigmaELBO,
    "cyclical": lambda: CyclicalELBO(steps=8),
    "set point": lambda: SetPointELBO(2.0),
    "annealed": lambda: AnnealedELBO(steps=5),
}


@pytest.fixture(params=list(OBJECTIVES))
def make(request):
    return OBJECTIVES[request.param]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_model_and_objective_and_step_are_one_graph(loop, make, backend):
    plain, compiled = loop(make()), loop(make())

    def forward(x, noise):
        reconstruction, kl = compiled.model(x, noise)
        loss = compiled.objective(kl, x, reconstruction)
        compiled.objective.step()
        return loss

    torch._dynamo.reset()
    run = torch.compile(forward, fullgraph=True, backend=backend)
    for _ in range(6):
        x, noise = compiled.batch()
        loss = run(x, noise)
        loss.backward()
        compiled.optimizer.step()
        compiled.optimizer.zero_grad()
        (expected,) = plain.run(1)
        torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-5)
    for key, value in plain.objective.state_dict().items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(compiled.objective.state_dict()[key], value)


def test_it_is_compiled_once(loop):
    """Neither the steps nor the multipliers' values lead to another compilation."""
    trained = loop(GECO(ReconstructionError(0.5)))
    count = torch._dynamo.testing.CompileCounter()

    def forward(x, noise):
        reconstruction, kl = trained.model(x, noise)
        loss = trained.objective(kl, x, reconstruction)
        trained.objective.step()
        return loss

    torch._dynamo.reset()
    run = torch.compile(forward, fullgraph=True, backend=count)
    for _ in range(8):
        run(*trained.batch()).backward()
    assert count.frame_count <= 2


def test_no_host_reads_on_fake_tensors(make):
    """A fake tensor has no value: reading one for the host is an error."""
    with FakeTensorMode():
        objective = make()
        model = torch.nn.Linear(4, 4)
        for _ in range(3):
            x = torch.randn(8, 4)
            objective(model(x).square().sum(1), x, model(x)).backward()
            objective.step()
        assert objective.info.loss.shape == ()


class NoHostReads(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.is_nonzero.default,
            torch.ops.aten.equal.default,
        ):
            raise AssertionError(f"the host reads a value: {func}")
        return func(*args, **(kwargs or {}))


def test_no_host_reads_on_real_tensors(make):
    """Long enough for the looks at saturation; the optimizer is left out."""
    objective = make()
    weight = torch.ones(4, requires_grad=True)
    with NoHostReads():
        for _ in range(150):
            x = torch.ones(8, 4)
            objective((weight * x).square().sum(1), x, weight * x).backward()
            objective.step()
            assert objective.info.beta is not None
        with pytest.raises(AssertionError, match="host"):
            objective.info.loss.item()


def of_many_kinds():
    return GECO(
        {
            "groups": PerGroup(ReconstructionError(0.5), groups=5),
            "masked": ReconstructionError(0.9),
            "labels": ClassificationAccuracy(0.9, lambda images: images[:, :3]),
            "rate": Rate(2.0),
        }
    )


def keywords():
    return {
        "groups": torch.tensor([0, 4, 4, 1]),
        "mask": torch.tensor([[True], [False], [True], [True]]),
        "labels": torch.tensor([0, -100, 2, 1]),
    }


def test_masks_labels_groups_and_rates_are_one_graph():
    plain, compiled = of_many_kinds(), of_many_kinds()
    weight = torch.ones(4, requires_grad=True)

    def run(objective, x, **batch):
        kl = (weight * x).square().sum(1)
        loss = objective(kl, x, weight * x, kl=kl, **batch)
        objective.step()
        return loss

    torch._dynamo.reset()
    graph = torch.compile(
        lambda x, **batch: run(compiled, x, **batch), fullgraph=True, backend="eager"
    )
    for _ in range(3):
        x = torch.randn(4, 4)
        torch.testing.assert_close(graph(x, **keywords()), run(plain, x, **keywords()))
    torch.testing.assert_close(compiled.multipliers.table, plain.multipliers.table)


def test_masks_labels_groups_and_rates_need_no_host_read():
    with FakeTensorMode():
        objective = of_many_kinds()
        weight = torch.ones(4, requires_grad=True)
        for _ in range(3):
            x = torch.randn(4, 4)
            kl = (weight * x).square().sum(1)
            objective(kl, x, weight * x, kl=kl, **keywords()).backward()
            objective.step()
        assert objective.info.multiplier["groups"].shape == (5,)


class Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_a_second_constraint_adds_few_operations():
    """Beside its own: at most 1.3 times what the objective needs for one, in tensors."""
    x, g = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8, requires_grad=True)
    constraints = {"RE": ReconstructionError(0.1), "PNCC": PatchCrossCorrelation(0.8, 4)}
    own, whole = [], []
    for names in (["RE"], ["RE", "PNCC"]):
        with Count() as count:
            for name in names:
                constraints[name](x, g).mean().backward()
        own.append(count.calls)
        objective = GECO({name: constraints[name] for name in names})
        objective.multipliers.on_host = lambda columns: False
        for _ in range(2):  # the first one makes constants
            with Count() as count:
                objective(torch.rand(4), x, g).backward()
                objective.step()
        whole.append(count.calls)
    assert whole[1] - own[1] <= 1.3 * (whole[0] - own[0])
