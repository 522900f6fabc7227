"""ConvDraw learns on real images: a few hundred steps on a CPU (slow; needs GECO_DATA_HOME).

The measure is the negative ELBO in nats of a Gaussian decoder with standard deviation 0.1,
without its constant. A model that ignores its latents and paints the mean image is the yardstick:
the margins below are shares of its loss on the same held-out images.
"""

import gzip
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geco_models import ConvDraw

pytestmark = pytest.mark.slow

SIGMA = 0.1
WINDOW = 50

# sizes, steps, seeds, and the share of the mean image's loss that must be reached
CASES = {
    "mnist": ({"steps": 4, "latent_channels": 2, "hidden": 16, "stride": 4}, 200, 3, 0.6),
    "cifar10": ({"steps": 4, "latent_channels": 8, "hidden": 16, "stride": 2}, 150, 2, 0.25),
}


def read(name):
    """Training and held-out images in [0, 1]."""
    home = os.environ.get("GECO_DATA_HOME")
    folder = {"mnist": "MNIST/raw", "cifar10": "cifar-10-batches-bin"}[name]
    if not home or not (Path(home) / folder).is_dir():
        pytest.skip(f"GECO_DATA_HOME names no folder with {folder}")
    if name == "mnist":
        with gzip.open(Path(home) / folder / "train-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    else:
        with lzma.open(Path(home) / folder / "data_batch_1.bin.xz") as file:
            rows = np.frombuffer(file.read(), np.uint8).reshape(-1, 3073)
        images = rows[:, 1:].reshape(-1, 3, 32, 32)
    images = torch.from_numpy(images[:10000].astype(np.float32) / 255)
    return images[:-500], images[-500:]


@pytest.mark.parametrize("name", list(CASES))
def test_negative_elbo_falls_steadily(name, seeded):
    options, steps, seeds, share = CASES[name]
    train, held_out = read(name)
    distance = (held_out - train.mean(0)).square().flatten(1).sum(1).mean()
    yardstick = float(distance) / (2 * SIGMA**2)
    for seed in range(seeds):
        torch.manual_seed(seed)
        generator = seeded(seed)
        draw = ConvDraw(tuple(train.shape[1:]), **options)
        optimizer = torch.optim.Adam(draw.parameters(), lr=2e-3)

        def loss(x, draw=draw, generator=generator):
            out = draw(x, generator=generator)
            error = (out.reconstruction - x).square().flatten(1).sum(1)
            return (out.kl + error / (2 * SIGMA**2)).mean(), out.kl.mean()

        trace = []
        for _ in range(steps):
            rows = torch.randint(len(train), (32,), generator=generator)
            value, _ = loss(train[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            trace.append(float(value.detach()))
        windows = torch.tensor(trace).view(-1, WINDOW).mean(1)
        assert (windows.diff() < 0).all(), (seed, windows)
        with torch.no_grad():
            final, kl = loss(held_out)
        assert final < share * yardstick, (seed, float(final) / yardstick)
        assert kl > 10, (seed, kl)  # nats: the latents are in use
