"""What the training loop costs beside the model's own forward, backward and optimizer step.

The loop is the real one, with progress bar, history and checkpoints. After every block of its
steps a block of bare steps is made in the same process: the same model and optimizer on one batch
that was made beforehand, with an inline ELBO. The paired blocks give the ratio, pairs of bare
blocks the noise floor.

    nox -s bench -- loop [--steps 4000] [--dataset mnist] [--model conv-vae] [--data-home DIR]
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import torch

from geco_experiments import RunConfig, datasets
from geco_experiments.builders.models import build_model
from geco_experiments.config import replace
from geco_experiments.datasets.home import DataHome
from geco_experiments.runtime.distributed import Ranks
from geco_experiments.runtime.progress import TqdmMeter
from geco_experiments.training import checkpoints, choose_device
from geco_experiments.training.batch_order import Order
from geco_experiments.training.loop import Loop


class Bare:
    """Forward, backward and optimizer step, and nothing else."""

    def __init__(self, config, data, device):
        self.model = build_model(config.model, data, 0).to(device)
        rate = config.training.learning_rate
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate, fused=True)
        rows = Order(len(data.train), config.training.batch_size, 0).rows(0)
        self.batch = data.batch("train", rows, data.draw(len(rows), torch.Generator()))
        self.device = device

    def steps(self, count):
        """Seconds that so many steps take."""
        x, context = self.batch.images, self.batch.context
        start = clock(self.device)
        for _ in range(count):
            out = self.model(x, context)
            error = (x - out.reconstruction).square().flatten(1).sum(1)
            loss = (out.kl + error / 2).mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return clock(self.device) - start


class Interleave:
    """Called by the loop after each step: notes its blocks and makes bare ones in between."""

    def __init__(self, bare, block):
        self.bare, self.block = bare, block
        self.done = 0
        self.loop_times, self.bare_times = [], []
        self.start = clock(bare.device)

    def __call__(self):
        """Note a block, if one is over; never asks the loop to stop."""
        self.done += 1
        if self.done % self.block == 0:
            self.loop_times.append(clock(self.bare.device) - self.start)
            self.bare_times.append([self.bare.steps(self.block) for _ in range(2)])
            self.start = clock(self.bare.device)
        return False


def clock(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def spread(values):
    quarter = statistics.quantiles(values, n=4)
    return f"median {statistics.median(values):.4f} (quartiles {quarter[0]:.4f} {quarter[2]:.4f})"


def batches(data, config, device, count=200):
    """Seconds to make one batch: rows, draws, view and scaling."""
    order = Order(len(data.train), config.training.batch_size, 0)
    generator = torch.Generator()
    times = []
    for step in range(count):
        start = clock(device)
        rows = order.rows(step)
        data.batch("train", rows, data.draw(len(rows), generator))
        times.append(clock(device) - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--model", default="conv-vae")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--block", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-home", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    config = replace(
        RunConfig(),
        {
            "dataset.name": options.dataset,
            "model.name": options.model,
            "training.steps": options.steps,
            "execution.device": options.device,
        },
    )
    data = datasets.load(config.dataset, DataHome.resolve(options.data_home)).to(device)
    loop, bare = Loop(config, data, device, Ranks()), Bare(config, data, device)
    bare.steps(options.block)
    fingerprint = data.fingerprint()
    with tempfile.TemporaryDirectory() as folder:
        meter = TqdmMeter(file=io.StringIO())
        meter.start(config.name, options.steps, 0)
        watch = Interleave(bare, options.block)
        path = Path(folder) / checkpoints.FILE
        loop.train(
            save=lambda: checkpoints.write(path, config, fingerprint, loop.checkpoint()),
            meter=meter,
            stop=watch,
        )
        meter.close()
    pairs = list(zip(watch.loop_times, watch.bare_times, strict=True))[1:]
    ratios = [mine / statistics.mean(plain) for mine, plain in pairs]
    floor = [one / other for _, (one, other) in pairs]
    step = statistics.median(t for _, plain in pairs for t in plain) / options.block
    print(f"{options.dataset}, {options.model}, batch {config.training.batch_size}, {device}")
    print(f"bare step             {step * 1e3:.3f} ms")
    print(f"loop / bare           {spread(ratios)}")
    print(f"bare / bare (floor)   {spread(floor)}")
    making = batches(data, config, device)
    print(f"making a batch        {making * 1e3:.3f} ms = {100 * making / step:.2f}% of a step")


if __name__ == "__main__":
    main()
