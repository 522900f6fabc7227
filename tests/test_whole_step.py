"""One training step as a device may record it: model, objective, optimizer and ascent.

A CUDA graph replays what was launched once. So a step must make nothing on the host, read nothing
from the device, look at no clock, and launch the same operations with the same numbers each time.
All of that shows without a GPU: tensors on the meta device have shapes and no numbers, and what is
made beside them is seen; and a recording of a step's operations can be replayed on the CPU.
"""

import importlib
import time
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geco_core import GECO, PatchCrossCorrelation, ReconstructionError
from geco_core.multipliers.state import Multipliers
from geco_models import MLPVAE, NVPVAE, ConvDraw, ConvVAE, HierarchicalVAE

SHAPE = (3, 16, 16)
MODELS = {
    "mlp": lambda: MLPVAE(SHAPE, 4, (16,)),
    "conv": lambda: ConvVAE(SHAPE, 4, width=8),
    "conv-logistic": lambda: ConvVAE(SHAPE, 4, width=8, likelihood="logistic"),
    "nvp": lambda: NVPVAE(SHAPE, 4, width=8),
    "conv-draw": lambda: ConvDraw(SHAPE, 3, 2, 8),
    "conv-draw-checkpoint": lambda: ConvDraw(SHAPE, 3, 2, 8, checkpoint=True),
    "conv-draw-unshared": lambda: ConvDraw(SHAPE, 2, 2, 8, shared=False),
    "hierarchical": lambda: HierarchicalVAE(SHAPE, width=8),
}
CONSTRAINTS = {
    "re": lambda: ReconstructionError(0.1),
    "re-pncc": lambda: {"re": ReconstructionError(0.1), "pncc": PatchCrossCorrelation(0.8)},
}


class Launches(TorchDispatchMode):
    """Records every operation with its sizes and numbers, and where its results lie."""

    def __init__(self):
        super().__init__()
        self.calls, self.devices = [], Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.devices.update(t.device.type for t in tree_leaves(result) if torch.is_tensor(t))
        numbers = [
            tuple(leaf.shape) if torch.is_tensor(leaf) else leaf
            for leaf in tree_leaves((args, kwargs or {}))
        ]
        if func.namespace == "aten":  # not the profiler's marks
            self.calls.append((func.name(), numbers))
        return result


class Recording(TorchDispatchMode):
    """Keeps every operation with the tensors that it met, to launch them again."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        views = any(r.alias_info for r in func._schema.returns)
        if func.namespace == "aten":
            self.operations.append((func, args, kwargs or {}, result, views))
        return result

    @torch.no_grad()
    def replay(self):
        """Launches all again, into the same memory."""
        for func, args, kwargs, result, views in self.operations:
            again = func(*args, **kwargs)
            if not views:
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if torch.is_tensor(old):
                        old.copy_(new)


class Step:
    """A training step as anybody writes it, on a device."""

    def __init__(self, make, constraints, device, kind=torch.float32):
        torch.manual_seed(0)
        self.model = make().to(device, kind)
        self.objective = GECO(constraints()).to(device, kind)
        # on the device Adam counts its steps in a tensor
        self.optimizer = torch.optim.Adam(self.model.parameters(), capturable=True)
        self.x = torch.rand(2, *SHAPE, device=device, dtype=kind)

    def __call__(self):
        out = self.model(self.x)
        loss = self.objective(out.kl, self.x, out.reconstruction)
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.optimizer.step()
        self.objective.step()


@pytest.fixture
def any_device(monkeypatch):
    """Adam keeps its counts on devices that it knows; here others stand for one."""
    adam = importlib.import_module("torch.optim.adam")
    known = adam._get_capturable_supported_devices
    # nor does the objective reckon in plain numbers, as it does with few of them on the CPU
    monkeypatch.setattr(Multipliers, "on_host", lambda *_, **__: False)
    monkeypatch.setattr(
        adam, "_get_capturable_supported_devices", lambda *a, **k: [*known(*a, **k), "meta", "cpu"]
    )


@pytest.fixture
def no_clock(monkeypatch):
    def fail(*_):
        raise AssertionError("the step looked at the clock")

    def forbid():
        for name in ("time", "perf_counter", "monotonic", "process_time", "time_ns"):
            monkeypatch.setattr(time, name, fail)

    yield forbid
    monkeypatch.undo()


@pytest.mark.parametrize("constraints", CONSTRAINTS)
@pytest.mark.parametrize("name", MODELS)
def test_a_step_stays_on_its_device_and_repeats_itself(name, constraints, any_device, no_clock):
    step = Step(MODELS[name], CONSTRAINTS[constraints], "meta")
    for _ in range(3):  # gradients, Adam's moments and the objective's state are made
        step()
    no_clock()
    seen = []
    for _ in range(3):
        with Launches() as launches:
            step()  # reading a number would raise: there are none
        assert set(launches.devices) == {"meta"}
        seen.append(launches.calls)
    assert len(seen[0]) > 100
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_step_replays_as_steps_do(name, any_device):
    """As a CUDA graph would: after the replays, weights and multipliers are those of steps."""
    # in float64: memory that lies otherwise is added up otherwise
    recorded, plain = (
        Step(MODELS[name], CONSTRAINTS["re-pncc"], "cpu", torch.float64) for _ in range(2)
    )
    torch.manual_seed(1)
    for _ in range(3):
        plain()
    middle = torch.get_rng_state()
    for _ in range(3):
        plain()

    torch.manual_seed(1)
    for _ in range(3):
        recorded()
    assert torch.equal(torch.get_rng_state(), middle)
    with Recording() as recording:
        recorded()
    for _ in range(2):
        recording.replay()

    for found, expected in (
        (recorded.model.state_dict(), plain.model.state_dict()),
        (dict(recorded.objective.named_buffers()), dict(plain.objective.named_buffers())),
    ):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            if torch.is_tensor(value):
                torch.testing.assert_close(found[key], value, msg=lambda m, k=key: f"{k}: {m}")


def test_what_a_step_must_not_do_is_seen(any_device):
    """The test above can fail: on a number read, a tensor on the host, another operation."""
    step = Step(MODELS["mlp"], CONSTRAINTS["re"], "meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(step.model(step.x).kl.sum())
    with Launches() as launches:
        step.x + torch.ones(())
    assert set(launches.devices) == {"meta", "cpu"}
