"""Counts the operations that one training step launches, per model; nothing is timed.

Each step runs on tensors without numbers: shapes, types and layouts are computed. They lie on the
meta device, which stands for any but the CPU (on a CPU ConvDraw does not defer the gradients of
its weights); under autocast, which that device lacks, they are fake ones of the CPU. Counted are
the operations of forward, objective and backward that are no views, before any fusion. On a GPU
each is at least one kernel launch, so the count says whether launches bind a model; the gradient
of a convolution is one operation, but one kernel for its input and one for its weight, which have
a column of their own. No GPU is needed, and none was used.

    python benchmarks/kernels.py                         # every model, float32
    python benchmarks/kernels.py --autocast              # under bfloat16 autocast
    python benchmarks/kernels.py --only convdraw --by-name
    python benchmarks/kernels.py --steps 2 4 8           # ConvDraw by its number of steps
    python benchmarks/kernels.py --only convdraw --compiled       # takes minutes

With `--compiled` forward and backward of the model are compiled by torch's own compiler, on this
machine's CPU, and its code is read: how many regions it fused, and how often they are launched
beside the convolutions.
"""

import argparse
import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor.utils import run_fw_bw_and_get_code
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from geco_core import GECO, PatchCrossCorrelation, ReconstructionError
from geco_models import (
    MLPVAE,
    NVPVAE,
    ConvDraw,
    ConvVAE,
    HierarchicalVAE,
    LinearVAE,
    StackedConvDraw,
)

SHAPE = (3, 32, 32)
# views that their schema does not declare as such, and questions
FREE = {"detach", "_unsafe_view", "alias", "lift_fresh", "promote_types", "device"}
# allocations, which launch nothing
FREE |= {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}

MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": lambda steps: LinearVAE(SHAPE, 64),
    "mlp": lambda steps: MLPVAE(SHAPE, 64),
    "conv": lambda steps: ConvVAE(SHAPE, 64),
    "nvp": lambda steps: NVPVAE(SHAPE, 64),
    "hierarchical": lambda steps: HierarchicalVAE(SHAPE),
    "convdraw": lambda steps: ConvDraw(SHAPE, steps),
    "convdraw-checkpoint": lambda steps: ConvDraw(SHAPE, steps, checkpoint=True),
    "convdraw-stacked": lambda steps: StackedConvDraw(SHAPE, steps),
    "convdraw-unshared": lambda steps: ConvDraw(SHAPE, steps, shared=False),
    "convdraw-canvas": lambda steps: ConvDraw(SHAPE, steps, canvas=32),
    "convdraw-conditional": lambda steps: ConvDraw(SHAPE, steps, context_shape=(7,)),
}


class Count(TorchDispatchMode):
    """Counts, by name, the operations that are no views; and the gradients of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.weights = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = func._schema
        view = any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
        name = schema.name.partition("::")[2]
        if not view and name not in FREE:
            self.calls[name] += 1
        if name == "convolution_backward" and args[-1][1]:
            self.weights += 1
        return func(*args, **(kwargs or {}))


def count_step(
    make: Callable[[], nn.Module],
    make_objective: Callable[[], nn.Module] | None,
    batch: int,
    autocast: bool,
) -> Count:
    """The operations of one training step.

    Args:
        make: Builds the model.
        make_objective: Builds the objective; None to count `kl + squared error` in its place.
        batch: Images a step.
        autocast: Whether forward and objective run under bfloat16 autocast.

    Returns:
        How often each operation was called, and for how many weights of convolutions.
    """
    mode = FakeTensorMode() if autocast else contextlib.nullcontext()
    model = _emptied(make(), mode)
    objective = None if make_objective is None else _emptied(make_objective(), mode)
    with mode, torch.device("cpu" if autocast else "meta"):
        x = torch.rand(batch, *SHAPE).to(memory_format=torch.channels_last)
        half = torch.autocast("cpu", torch.bfloat16, enabled=autocast)
        _step(model, objective, x, half)  # gradients and states exist from then on
        for parameter in model.parameters():
            parameter.grad = None
        with Count() as count:
            _step(model, objective, x, half)
    return count


def _emptied(module: nn.Module, mode: Any) -> nn.Module:
    """The module with fake parameters and buffers in place of its real ones, or on no device."""
    if not isinstance(mode, FakeTensorMode):
        return module.to("meta")
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(mode.from_tensor(parameter.detach()))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = mode.from_tensor(buffer)
    return module


def _step(
    model: Any,
    objective: nn.Module | None,
    x: Tensor,
    half: contextlib.AbstractContextManager[Any],
) -> None:
    shape = model.context_shape
    context = None if shape is None else torch.rand(len(x), *shape)
    with half:
        out = model(x, context)
        if objective is None:
            loss = out.kl.mean() + (out.reconstruction - x).square().mean()
        else:
            loss = objective(out.kl, x, out.reconstruction)
    torch.autograd.backward(loss)


def compiled_regions(make: Callable[[], nn.Module], batch: int) -> tuple[int, int]:
    """The regions that torch's compiler fuses, forward and backward, and their launches."""
    model = make().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(batch, *SHAPE).to(memory_format=torch.channels_last)
    call = torch.compile(model, fullgraph=True)

    def loss() -> Tensor:
        out = call(x)
        return out.kl.mean() + (out.reconstruction - x).square().mean()

    _, codes = run_fw_bw_and_get_code(loss)
    # definitions, on a CPU or on a GPU; then calls
    fused = re.compile(r"^\w+ = async_compile\.", re.MULTILINE)
    launched = re.compile(r"^\s+(cpp_fused\w*\(|triton_\w+\.run\()", re.MULTILINE)
    return tuple(sum(len(one.findall(code)) for code in codes) for one in (fused, launched))  # type: ignore[return-value]


def objectives() -> Iterator[tuple[str, Callable[[], nn.Module] | None]]:
    """The objectives by name."""
    yield "model", None
    yield "RE", lambda: GECO(ReconstructionError(0.1))
    yield (
        "RE + PNCC",
        lambda: GECO({"re": ReconstructionError(0.1), "pncc": PatchCrossCorrelation(0.8)}),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="+", default=[8])
    parser.add_argument("--autocast", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--compiled", action="store_true", help="what torch's compiler fuses")
    parser.add_argument("--by-name", action="store_true", help="also which operations")
    args = parser.parse_args(arguments)

    if args.compiled:
        print("| model | T | fused regions | their launches |\n|---|---|---|---|")
        for name in args.only:
            for steps in args.steps if name.startswith("convdraw") else [0]:
                make = lambda name=name, steps=steps: MODELS[name](steps)  # noqa: E731
                regions, launches = compiled_regions(make, args.batch)
                print(f"| {name} | {steps or '-'} | {regions} | {launches} |", flush=True)
        return

    names = [name for name, _ in objectives()]
    print(
        f"non-view operations of one training step, batch {args.batch}, torch {torch.__version__}"
    )
    print("| model | T | " + " | ".join(names) + " | copies and casts | weight gradients |")
    print("|---" * (len(names) + 4) + "|")
    for name in args.only:
        for steps in args.steps if name.startswith("convdraw") else [0]:
            counts = {}
            for label, objective in objectives():
                make = lambda name=name, steps=steps: MODELS[name](steps)  # noqa: E731
                counts[label] = count_step(make, objective, args.batch, args.autocast)
            model = counts["model"]
            copies = sum(model.calls[key] for key in ("_to_copy", "clone", "copy_"))
            cells = " | ".join(f"{counts[label].calls.total():,}" for label in names)
            print(f"| {name} | {steps or '-'} | {cells} | {copies} | {model.weights} |")
            if args.by_name:
                for key, number in model.calls.most_common():
                    print(f"    {number:5d}  {key}")


if __name__ == "__main__":
    main()
