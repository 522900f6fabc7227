"""RealNVP beside zuko, normflows and nflows in one run; then ConvDraw (`conv_draw.py`).

All four flows have 64 features, 8 affine couplings, ReLU networks 32-128-128-64 and the same
number of parameters (checked). One round times each of them once, in an order drawn anew: the
density of a batch, or a batch of draws with their log-densities, forward and backward, gradients
of all parameters. The table gives medians, and the median and quartiles over the rounds of
(time of the library / time of ours), so that a busy machine disturbs both sides of a ratio alike.

    python benchmarks/models.py                # flows, then everything in conv_draw.py
    python benchmarks/models.py --only flows --rounds 300 --threads 1
    python benchmarks/models.py --quick        # fewer rounds, small ConvDraw

Before anything is timed, each flow's density is compared with the one that comes with its draws.
"""

import argparse
import platform
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geco_models import RealNVP

FEATURES, COUPLINGS, HIDDEN = 64, 8, (128, 128)
OURS = "geco-models"


class Flow(NamedTuple):
    """A library's flow: its parameters, and the two things that are timed."""

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[], tuple[Tensor, Tensor]]


def ours(batch: int) -> Flow:
    flow = RealNVP(FEATURES, COUPLINGS, HIDDEN)
    return Flow(flow, flow.log_prob, lambda: flow.sample_and_log_prob(batch))


def from_zuko(batch: int) -> Flow:
    import zuko

    flow = zuko.flows.RealNVP(FEATURES, transforms=COUPLINGS, hidden_features=HIDDEN)
    return Flow(flow, lambda x: flow().log_prob(x), lambda: flow().rsample_and_log_prob((batch,)))


def from_normflows(batch: int) -> Flow:
    import normflows

    layers: list[nn.Module] = []
    for _ in range(COUPLINGS):
        network = normflows.nets.MLP([FEATURES // 2, *HIDDEN, FEATURES])
        layers.append(normflows.flows.AffineCouplingBlock(network))
        layers.append(normflows.flows.Permute(FEATURES, mode="swap"))
    base = normflows.distributions.DiagGaussian(FEATURES, trainable=False)
    flow = normflows.NormalizingFlow(base, layers)
    return Flow(flow, flow.log_prob, lambda: flow.sample(batch))


def from_nflows(batch: int) -> Flow:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow as NFlow
    from nflows.transforms import AffineCouplingTransform, CompositeTransform

    class Network(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            first, second = HIDDEN
            self.layers = nn.Sequential(
                nn.Linear(inputs, first),
                nn.ReLU(),
                nn.Linear(first, second),
                nn.ReLU(),
                nn.Linear(second, outputs),
            )

        def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return self.layers(x)

    mask = torch.arange(FEATURES) % 2
    layers = [AffineCouplingTransform(abs(mask - i % 2), Network) for i in range(COUPLINGS)]
    flow = NFlow(CompositeTransform(layers), StandardNormal([FEATURES]))
    return Flow(flow, flow.log_prob, lambda: flow.sample_and_log_prob(batch))


def check(flows: dict[str, Flow]) -> None:
    """The comparison is fair: as many parameters, and a density that belongs to the draws."""
    counts = {
        name: sum(p.numel() for p in flow.module.parameters()) for name, flow in flows.items()
    }
    if len(set(counts.values())) != 1:
        raise RuntimeError(f"the flows differ in size: {counts}")
    print(f"parameters of each flow: {counts[OURS]:,}")
    for name, flow in flows.items():
        with torch.no_grad():
            z, log_prob = flow.sample()
            again = flow.log_prob(z)
        if not torch.allclose(again, log_prob, atol=2e-2, rtol=1e-4):
            raise RuntimeError(f"{name}: the draws' density is not the flow's")


def race(
    flows: dict[str, Flow], loss: Callable[[Flow], Tensor], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each flow in each round; the first tenth of the rounds only warms up."""
    times: dict[str, list[float]] = {name: [] for name in flows}
    warm = max(rounds // 10, 3)
    for i in range(warm + rounds):
        for name in random.sample(list(flows), len(flows)):
            flow = flows[name]
            flow.module.zero_grad()
            start = clock()
            loss(flow).backward()
            taken = clock() - start
            if i >= warm:
                times[name].append(taken)
    return times


def table(title: str, times: dict[str, list[float]]) -> None:
    print(f"\n{title}\n")
    print("| library | median ms | time / ours | quartiles |\n|---|---|---|---|")
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[OURS], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = 1e3 * statistics.median(seconds)
        print(f"| {name} | {median:.2f} | {middle:.2f} | {low:.2f}-{high:.2f} |")


def flows_part(args: argparse.Namespace) -> None:
    device = torch.device(args.device)
    rounds = args.rounds or (60 if args.quick else 300)
    torch.manual_seed(0)
    with torch.device(device):
        flows = {
            OURS: ours(args.batch),
            "zuko": from_zuko(args.batch),
            "normflows": from_normflows(args.batch),
            "nflows": from_nflows(args.batch),
        }
    # outside the device context, which slows down every call
    x = torch.randn(args.batch, FEATURES, device=device)
    if args.compile:
        flows[f"{OURS}, compiled"] = compiled(flows[OURS])
    check(flows)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.thread_time() if args.cpu_time else time.perf_counter()

    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    unit = "CPU time" if args.cpu_time else "wall time"
    print(
        f"{where}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"batch {args.batch}, {rounds} rounds, {unit}"
    )
    table(
        "Density, forward + backward",
        race(flows, lambda flow: -flow.log_prob(x).mean(), rounds, clock),
    )
    table("Draws with log-density, forward + backward", race(flows, sampling_loss, rounds, clock))


def sampling_loss(flow: Flow) -> Tensor:
    z, log_prob = flow.sample()
    return log_prob.mean() + z.square().mean()


def compiled(flow: Flow) -> Flow:
    return Flow(
        flow.module,
        torch.compile(flow.log_prob, fullgraph=True),
        torch.compile(flow.sample, fullgraph=True),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["flows", "conv-draw"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, small ConvDraw")
    parser.add_argument("--rounds", type=int, help="rounds of the flows; 300, or 60 if quick")
    parser.add_argument("--batch", type=int, default=128, help="batch size of the flows")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice if not given")
    parser.add_argument("--compile", action="store_true", help="compiled variants as well")
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU seconds, for a busy machine; with --threads 1"
    )
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.only != "conv-draw":
        warnings.filterwarnings("ignore")  # the peers' own, about newer versions of torch
        flows_part(args)
    if args.only != "flows":
        command = [sys.executable, str(Path(__file__).with_name("conv_draw.py"))]
        command += ["--device", args.device]
        command += ["--threads", str(args.threads)] if args.threads else []
        command += [f"--{name}" for name in ("quick", "compile") if getattr(args, name)]
        command += ["--cpu-time"] if args.cpu_time else []
        print("\nConvDraw\n", flush=True)
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
