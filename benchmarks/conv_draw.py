"""ConvDraw against a straightforward implementation of the same mathematics, and its memory.

The reference below is what one writes first: at each step the image's features, four separate
gate convolutions per LSTM over everything that enters, the error computed as an image. It takes
its weights from a `ConvDraw` (outputs and gradients are compared before anything is timed), so
each ratio is one of implementation alone. All variants run in one process, their order drawn anew
in each round; the table gives medians and the median of the ratios within a round.

    python benchmarks/conv_draw.py            # CIFAR size: batch 32, 8 steps, 64 channels
    python benchmarks/conv_draw.py --quick    # small sizes, a minute
    python benchmarks/conv_draw.py --device cuda --bf16 --compile
    python benchmarks/conv_draw.py --gqn FOLDER   # a checkout of the GQN named below

With `--gqn` a second race is run against the generator core of
https://github.com/wohlert/generative-query-network-pytorch, read from the folder: another
architecture for the same task (no canvas is read, no prior LSTM, so less work a step), with 8x8
states, the same steps and channels, and a vector of 7 numbers as the context; ConvDraw once with
its 5x5 convolutions and once with 3x3, which has about as many parameters as it.
"""

import argparse
import importlib.util
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from geco_models import ConvDraw, ConvLSTMCell


class SeparateGates(nn.Module):
    """A conv-LSTM cell with one convolution per gate over all that enters it."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weights = nn.ParameterList(part.clone() for part in weight.detach().chunk(4))
        self.biases = nn.ParameterList(part.clone() for part in bias.detach().chunk(4))

    def forward(self, inputs: list[Tensor], hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The next hidden and cell state."""
        joined = torch.cat([*inputs, hidden], dim=1)
        pad = self.weights[0].shape[-1] // 2
        new, old, show, candidate = (
            functional.conv2d(joined, weight, bias, padding=pad)
            for weight, bias in zip(self.weights, self.biases, strict=True)
        )
        cell = torch.sigmoid(old) * cell + torch.sigmoid(new) * torch.tanh(candidate)
        return torch.sigmoid(show) * torch.tanh(cell), cell


class StraightforwardDraw(nn.Module):
    """The mathematics of an unconditional shared `ConvDraw`, without saving anything.

    `features_once` computes the image's features before the first step instead of in each one;
    their convolution to the gates still happens at each step.
    """

    def __init__(self, model: ConvDraw, features_once: bool = False) -> None:
        super().__init__()
        self.features_once = features_once
        self.steps, self.stride = model.steps, model.network.stride
        network, core = model.network, model.network.core(0)
        self.hidden = core.prior_cell.hidden
        self.image_net = nn.Sequential(
            *(
                _copy(layer) if isinstance(layer, nn.Conv2d) else nn.GELU()
                for layer in network.image_net
            )
        )
        # what enters the posterior: features, image, error, last latent, own state
        entering = (core.image_gates.weight, core.posterior_cell.weight)
        self.posterior_cell = SeparateGates(torch.cat(entering, 1), core.posterior_cell.bias)
        self.prior_cell = self._cell(core.prior_cell)
        self.decoder_cell = self._cell(core.decoder_cell)
        self.posterior_head = _copy(core.posterior_head)
        self.prior_head = _copy(core.prior_head)
        self.write = _copy(core.write)
        self.first_canvas = nn.Parameter(network.first_canvas.detach().clone())
        states = (network.first_prior, network.first_posterior, network.first_decoder)
        self.first_states = nn.ParameterList(state.detach().clone() for state in states)

    @staticmethod
    def _cell(cell: ConvLSTMCell) -> SeparateGates:
        return SeparateGates(cell.weight, cell.bias)

    def forward(
        self, x: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Reconstruction and KL."""
        batch = x.shape[0]
        image = functional.pixel_unshuffle(x, self.stride)
        canvas = self.first_canvas.expand(batch, -1, -1, -1)
        (hp, cp), (hq, cq), (hd, cd) = (
            (state[:1].expand(batch, -1, -1, -1), state[1:].expand(batch, -1, -1, -1))
            for state in self.first_states
        )
        channels = self.prior_head.out_channels // 2
        noise = torch.randn(
            (self.steps, batch, channels, *canvas.shape[2:]), generator=generator, device=x.device
        )
        kl, z = x.new_zeros(batch), torch.zeros_like(noise[0])
        features = self.image_net(image) if self.features_once else None
        for step in range(self.steps):
            seen = self.image_net(image) if features is None else features
            hp, cp = self.prior_cell([z], hp, cp)
            hq, cq = self.posterior_cell([seen, image, canvas - image, z], hq, cq)
            mean_p, log_p = self.prior_head(hp).to(noise.dtype).chunk(2, dim=1)
            mean_q, log_q = self.posterior_head(hq).to(noise.dtype).chunk(2, dim=1)
            log_p, log_q = 20 * torch.tanh(log_p / 20), 20 * torch.tanh(log_q / 20)
            z = mean_q + torch.exp(0.5 * log_q) * noise[step]
            ratio = torch.exp(log_q - log_p) + (mean_q - mean_p) ** 2 * torch.exp(-log_p)
            kl = kl + 0.5 * (ratio - 1 - log_q + log_p).flatten(1).sum(1)
            hd, cd = self.decoder_cell([z], hd, cd)
            canvas = canvas + self.write(hd)
        return functional.pixel_shuffle(canvas, self.stride), kl


def _copy(layer: nn.Conv2d) -> nn.Conv2d:
    twin = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        padding=layer.padding,
        bias=layer.bias is not None,
    )
    twin.load_state_dict(layer.state_dict())
    return twin


def objective(reconstruction: Tensor, kl: Tensor, x: Tensor) -> Tensor:
    return (kl + 50 * (reconstruction - x).square().flatten(1).sum(1)).mean()


def compare(model: ConvDraw, reference: StraightforwardDraw, x: Tensor) -> None:
    """Raises unless both give the same reconstruction, KL and gradients, in float64."""
    model, reference, x = model.double(), reference.double(), x.double()
    ours = model(x, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(1)  # the reference draws float32 noise by default: draw it as ours does
    torch.set_default_dtype(torch.float64)
    theirs = reference(x, generator=torch.Generator().manual_seed(1))
    torch.set_default_dtype(torch.float32)
    objective(ours.reconstruction, ours.kl, x).backward()
    objective(*theirs, x).backward()
    core = model.network.core(0)
    pairs = {
        "reconstruction": (ours.reconstruction, theirs[0]),
        "KL": (ours.kl, theirs[1]),
        "gradient of the write convolution": (core.write.weight.grad, reference.write.weight.grad),
        "gradient of the prior's gates": (
            core.prior_cell.weight.grad,
            torch.cat([weight.grad for weight in reference.prior_cell.weights]),
        ),
        "gradient of the image's features": (
            model.network.image_net[0].weight.grad,
            reference.image_net[0].weight.grad,
        ),
    }
    for name, (a, b) in pairs.items():
        error = float((a - b).detach().abs().max() / b.detach().abs().max())
        if not error < 1e-9:
            raise RuntimeError(f"{name}: ours and the reference differ by {error:.1e}, relative")
        print(f"  {name}: equal to {error:.0e} relative (float64)")


def training_step(
    network: nn.Module,
    x: Tensor,
    autocast: bool,
    compiled: str | None = None,
    context: Tensor | None = None,
) -> Callable[[], None]:
    """Forward, backward and one Adam step, as a function of nothing."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    call = network
    if compiled == "step" and isinstance(network, ConvDraw):
        network.infer_step = torch.compile(network.infer_step, fullgraph=True)
    elif compiled:
        call = torch.compile(network)

    def step() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            out = call(x) if context is None else call(x, context)
        loss = objective(out[0].float(), out[1].float(), x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if x.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def race(
    steps: dict[str, Callable[[], None]],
    rounds: int,
    baseline: str,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Times every variant once a round, in an order drawn anew; prints medians and ratios."""
    for name, step in steps.items():
        began = time.perf_counter()
        step()
        print(f"  first call of {name}: {time.perf_counter() - began:.1f} s", flush=True)
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    shuffle = random.Random(0)
    for _ in range(rounds):
        order = list(steps)
        shuffle.shuffle(order)
        for name in order:
            began = clock()
            steps[name]()
            seconds[name].append(clock() - began)
    print(
        f"\n| variant | s per step, median (min-max) | speed against {baseline} |\n|---|---|---|"
    )
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds[baseline], times, strict=True)]
        print(
            f"| {name} | {statistics.median(times):.3f} ({min(times):.3f}-{max(times):.3f}) "
            f"| {statistics.median(ratios):.2f} |"
        )
    print(flush=True)


def build(size: dict[str, int], **options: object) -> ConvDraw:
    return ConvDraw(
        (3, 32, 32),
        steps=size["steps"],
        hidden=size["hidden"],
        latent_channels=size["latent_channels"],
        **options,
    )


def speed(args: argparse.Namespace, size: dict[str, int]) -> None:
    device = torch.device(args.device)
    torch.manual_seed(0)
    x = torch.rand(size["batch"], 3, 32, 32)
    small = build({**size, "hidden": 8, "steps": 3}, kernel=args.kernel, stride=args.stride)
    for once in (False, True):
        compare(small, StraightforwardDraw(small, once), x[:2])
        small.zero_grad()

    def fresh() -> ConvDraw:
        return build(size, kernel=args.kernel, stride=args.stride).to(device)

    x = x.to(device)
    steps = {
        "reference": training_step(StraightforwardDraw(fresh()).to(device), x, False),
        "reference, features once": training_step(
            StraightforwardDraw(fresh(), True).to(device), x, False
        ),
        "ConvDraw": training_step(fresh(), x, False),
        "ConvDraw, contiguous weights": training_step(
            fresh().to(memory_format=torch.contiguous_format), x, False
        ),
    }
    if args.compile:
        steps["reference, compiled"] = training_step(
            StraightforwardDraw(fresh()).to(device), x, False, compiled=args.compile
        )
        steps["ConvDraw, compiled"] = training_step(fresh(), x, False, compiled=args.compile)
    if args.bf16:
        steps["reference, bf16"] = training_step(StraightforwardDraw(fresh()).to(device), x, True)
        steps["ConvDraw, bf16"] = training_step(fresh(), x, True)
        if args.compile:
            steps["ConvDraw, bf16, compiled"] = training_step(
                fresh(), x, True, compiled=args.compile
            )
    clock = time.process_time if args.cpu_time else time.perf_counter
    race(steps, args.rounds, "reference", clock)


class GQNCore(nn.Module):
    """The GQN's generator core called as a model of images with a vector as the context."""

    def __init__(self, folder: str, size: dict[str, int]) -> None:
        super().__init__()
        spec = importlib.util.spec_from_file_location("gqn_core", Path(folder, "gqn/generator.py"))
        if spec is None or spec.loader is None:
            raise SystemExit(f"there is no gqn/generator.py in {folder}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.core = module.GeneratorNetwork(
            3, 7, 1, z_dim=size["latent_channels"], h_dim=size["hidden"], L=size["steps"]
        )

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and KL."""
        reconstruction, kl = self.core(x, context, x.new_zeros(len(x), 1, 1, 1))
        return reconstruction, kl.flatten(1).sum(1)


def against_gqn(args: argparse.Namespace, size: dict[str, int]) -> None:
    device = torch.device(args.device)
    x = torch.rand(size["batch"], 3, 32, 32, device=device)
    context = torch.rand(size["batch"], 7, device=device)
    networks = {
        "GQN core": GQNCore(args.gqn, size),
        "ConvDraw": build(size, kernel=5, stride=4, context_shape=(7,)),
        "ConvDraw, 3x3": build(size, kernel=3, stride=4, context_shape=(7,)),
    }
    for name, network in networks.items():
        print(f"  {name}: {sum(p.numel() for p in network.parameters()):,} parameters")
    steps = {
        name: training_step(network.to(device), x, False, context=context)
        for name, network in networks.items()
    }
    race(steps, args.rounds, "GQN core", time.process_time if args.cpu_time else time.perf_counter)


def memory(args: argparse.Namespace, size: dict[str, int]) -> None:
    """Peak memory of a training step, each in a process of its own (CPU) or by the allocator."""
    counts = [2, 4, 8] if args.quick else [2, 4, 8, 16, 32]
    print("| steps | MiB, as it is | MiB, checkpoint=True |\n|---|---|---|")
    for count in counts:
        row = []
        for again in (False, True):
            command = [sys.executable, __file__, "--peak", str(count), "--device", args.device]
            command += ["--kernel", str(args.kernel), "--stride", str(args.stride)]
            command += ["--again"] * again + ["--quick"] * args.quick
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row.append(float(done.stdout))
        print(f"| {count} | {row[0]:.0f} | {row[1]:.0f} |", flush=True)


def peak(args: argparse.Namespace, size: dict[str, int]) -> None:
    """Prints the MiB that one training step adds to the process's peak."""
    device = torch.device(args.device)
    options = {"kernel": args.kernel, "stride": args.stride, "checkpoint": args.again}
    model = build({**size, "steps": args.peak}, **options).to(device)
    x = torch.rand(size["batch"], 3, 32, 32, device=device)
    training_step(model, x[:1], False)()  # what a first call sets up does not count
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    training_step(model, x, False)()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        after = torch.cuda.max_memory_allocated()
    print((after - before) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--rounds", type=int, help="rounds of timing; 7, or 3 if quick")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice if not given")
    parser.add_argument(
        "--compile",
        nargs="?",
        const="step",
        choices=["step", "whole"],
        help="compiled variants as well: ConvDraw's step alone (quick to compile), or all of it",
    )
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast as well")
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU seconds, for a busy machine; with --threads 1"
    )
    parser.add_argument("--batch", type=int, help="another batch size")
    parser.add_argument("--gqn", metavar="FOLDER", help="a checkout of the GQN to race against")
    parser.add_argument("--only", choices=["speed", "memory", "gqn"])
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 7)
    if args.threads:
        torch.set_num_threads(args.threads)
    size = {"batch": 32, "steps": 8, "hidden": 64, "latent_channels": 8}
    if args.quick:
        size = {"batch": 8, "steps": 4, "hidden": 32, "latent_channels": 8}
    size["batch"] = args.batch or size["batch"]
    if args.peak:
        peak(args, size)
        return
    where = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"{size}, {vars(args)}, torch {torch.__version__}, {where}", flush=True)
    if args.only in (None, "speed"):
        speed(args, size)
    if args.gqn and args.only in (None, "gqn"):
        against_gqn(args, size)
    if args.only in (None, "memory"):
        memory(args, size)


if __name__ == "__main__":
    main()
