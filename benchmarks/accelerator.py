"""ConvDraw on an accelerator: images a second, and how much of a step its convolutions take.

One training step is model, objective (`GECO` with `ReconstructionError`), Adam and the ascent.
Each variant is timed in turn, in an order drawn anew in each round; the table gives medians.

    python benchmarks/accelerator.py --device cuda
    python benchmarks/accelerator.py --device cuda --hidden 256 --batch 256
    python benchmarks/accelerator.py --device cpu --quick     # a test of the script, small sizes

- `float32`, `bf16`: eager, without and with bfloat16 autocast.
- `compiled`: bf16, the whole model under `torch.compile`; `step`: one step of the model alone.
- `graphed`: the compiled step of the training, captured once as a CUDA graph and replayed.
- times float32: how many times as quick as the eager float32 step.
- share of convolutions: the time of the model's own convolutions, forward and backward, replayed
  one after the other on random numbers, as a share of the time of the step.
- share of the peak: the step's floating-point operations a second (counted, not estimated) over
  those of a bfloat16 product of two 8192 x 8192 matrices in the same run.

The table is written to the folder `results` beside this script, in a file with the device's name,
unless `--out` says otherwise or the run is quick. While no such file is there, the script has been
run on CPUs only, to test it.
"""

import argparse
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from geco_core import GECO, ReconstructionError
from geco_models import ConvDraw

SHAPE = (3, 32, 32)
RESULTS = Path(__file__).parent / "results"


class Convolutions(TorchDispatchMode):
    """Records the arguments' shapes, types and layouts of every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::convolution", "aten::convolution_backward"):
            kept = [(a.shape, a.stride(), a.dtype) if isinstance(a, Tensor) else a for a in args]
            self.calls.append((func, kept))
        return func(*args, **(kwargs or {}))

    def replay(self, device: torch.device) -> Callable[[], None]:
        """All of them once, on random numbers, as a function of nothing."""
        made: dict[Any, Tensor] = {}

        def tensor(description: Any) -> Any:
            if not (isinstance(description, tuple) and len(description) == 3):
                return description
            if description not in made:
                shape, stride, dtype = description
                like = torch.empty_strided(shape, stride, dtype=dtype, device=device)
                made[description] = like.normal_()
            return made[description]

        calls = [(func, [tensor(a) for a in args]) for func, args in self.calls]

        def run() -> None:
            for func, args in calls:
                func(*args)

        return run


class Training:
    """A model with its objective and optimizer, on a device."""

    def __init__(self, args: argparse.Namespace, device: torch.device, autocast: bool) -> None:
        torch.manual_seed(0)
        self.autocast = autocast
        self.model: Any = ConvDraw(
            SHAPE, args.steps, args.latent_channels, args.hidden, stride=args.stride
        ).to(device)
        self.call: nn.Module | Callable[..., Any] = self.model
        self.objective = GECO(ReconstructionError(0.05)).to(device)
        self.x = torch.rand(args.batch, *SHAPE, device=device).to(
            memory_format=torch.channels_last
        )
        on_device = {"capturable": True} if device.type == "cuda" else {}
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4, **on_device)

    def step(self) -> None:
        """Forward, objective, backward, Adam, ascent."""
        with torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.autocast):
            out = self.call(self.x)
            loss = self.objective(out.kl, self.x, out.reconstruction)
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.optimizer.step()
        self.objective.step()

    def graphed(self) -> Callable[[], None]:
        """The step as one CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay


def variants(args: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], None]]:
    """The steps to be timed, by name; those that the device does not have are left out."""
    plain = {name: Training(args, device, name == "bf16") for name in ("float32", "bf16")}
    found: dict[str, Callable[[], None]] = {name: one.step for name, one in plain.items()}
    if args.compile:
        whole = Training(args, device, True)
        whole.call = torch.compile(whole.model)
        found["compiled"] = whole.step
        alone = Training(args, device, True)
        alone.model.infer_step = torch.compile(alone.model.infer_step)
        found["step"] = alone.step
    if device.type == "cuda":
        graphed = Training(args, device, True)
        if args.compile:
            graphed.call = torch.compile(graphed.model)
        try:
            found["graphed"] = graphed.graphed()
        except RuntimeError as error:  # something in the step waits for the device
            print(f"no CUDA graph: {str(error).splitlines()[0]}", file=sys.stderr)
    return found


def race(
    steps: dict[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, float]:
    """The median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():  # compilation and first allocations do not count
        print(f"first call of {name}", file=sys.stderr, flush=True)
        step()
        step()
    for _ in range(rounds):
        for name in random.sample(list(steps), len(steps)):
            _wait(device)
            start = time.perf_counter()
            steps[name]()
            _wait(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _product(size: int, device: torch.device) -> Callable[[], None]:
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)

    def run() -> None:
        torch.mm(a, a)

    return run


def report(args: argparse.Namespace, device: torch.device) -> str:
    """The table."""
    one = Training(args, device, True)
    one.step()
    with Convolutions() as seen:
        one.step()
    with FlopCounterMode(display=False) as flops:
        one.step()
    side = 256 if args.quick else 8192
    steps = variants(args, device)
    steps |= {"its convolutions": seen.replay(device), "product": _product(side, device)}
    seconds = race(steps, args.rounds, device)
    peak = 2 * side**3 / seconds.pop("product")
    alone = seconds.pop("its convolutions")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    lines = [
        f"# ConvDraw on {where}, torch {torch.__version__}",
        "",
        f"{vars(args)}",
        "",
        f"{flops.get_total_flops() / 1e9:.1f} GFLOP a step; its convolutions alone "
        f"{1e3 * alone:.3g} ms (bf16); peak of a product {peak / 1e12:.3g} TFLOP/s",
        "",
        "| variant | ms a step | images/s | times float32 | share of convolutions | "
        "share of the peak |",
        "|---|---|---|---|---|---|",
    ]
    for name, value in seconds.items():
        share = "-" if name == "float32" else f"{100 * alone / value:.0f}%"
        rate = flops.get_total_flops() / value / peak
        lines.append(
            f"| {name} | {1e3 * value:.3g} | {args.batch / value:.4g} | "
            f"{seconds['float32'] / value:.2f} | {share} | "
            f"{100 * rate:.1f}% |"
        )
    if device.type == "cpu":
        lines += ["", "Run on a CPU, which tests the script and says nothing of an accelerator."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--latent-channels", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written")
    parser.add_argument("--out", type=Path, help="where the table is written")
    args = parser.parse_args(arguments)
    if args.quick:
        args.batch, args.hidden, args.steps, args.rounds = 2, 8, 2, 2
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; `--device cpu --quick` tests the script")
    device = torch.device(args.device)
    table = report(args, device)
    print(table, end="")
    out = args.out
    if out is None and not args.quick:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        out = RESULTS / f"accelerator-{re.sub('[^a-z0-9]+', '-', name.lower())}.md"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(table, encoding="utf-8")
        print(f"written to {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
