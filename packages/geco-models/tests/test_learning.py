"""VAEs learn: on drawn blobs in seconds, on MNIST in a few hundred CPU steps (slow).

The measure is the negative ELBO in nats of a Gaussian decoder with standard deviation SIGMA,
without its constant. The yardstick is a model that ignores its latents and paints the mean
image; the margins are shares of its loss on the same held-out images.
"""

import gzip
import os
from pathlib import Path

import pytest
import torch

from geco_models import MLPVAE, NVPVAE, ConvVAE, HierarchicalVAE

SIGMA = 0.2
BLOB_SIGMA = 0.1
WINDOW = 50


def blobs(n, side=12):
    """Images of one bright blob each, anywhere: two latents suffice, no linear map does."""
    axis = torch.linspace(0, 1, side)
    center = 0.2 + 0.6 * torch.rand(n, 2, 1)
    rows, columns = torch.exp(-50 * (axis - center).square()).unbind(1)
    return (rows[:, :, None] * columns[:, None, :]).unsqueeze(1)


def digits():
    """Training and held-out images of MNIST in [0, 1]."""
    home = os.environ.get("GECO_DATA_HOME")
    path = Path(home or "") / "MNIST/raw/train-images-idx3-ubyte.gz"
    if not home or not path.is_file():
        pytest.skip("GECO_DATA_HOME names no folder with MNIST/raw")
    with gzip.open(path) as file:
        pixels = torch.frombuffer(bytearray(file.read()[16:]), dtype=torch.uint8)
    images = pixels.view(-1, 1, 28, 28).float() / 255
    return images[:-2000], images[-2000:]


def train(model, images, held_out, steps, batch, generator, sigma=SIGMA, rate=2e-3):
    """The mean loss of each window of training, and the held-out loss and KL at the end."""

    def loss(x):
        out = model(x, generator=generator)
        error = (out.reconstruction - x).square().flatten(1).sum(1)
        return (out.kl + error / (2 * sigma**2)).mean(), out.kl.mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    trace = []
    for _ in range(steps):
        value, _ = loss(images[torch.randint(len(images), (batch,), generator=generator)])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        trace.append(value.item())
    with torch.no_grad():
        final, kl = loss(held_out)
    return torch.tensor(trace).view(-1, WINDOW).mean(1), final.item(), kl.item()


def mean_image_loss(images, held_out, sigma=SIGMA):
    distance = (held_out - images.mean(0)).square().flatten(1).sum(1).mean()
    return distance.item() / (2 * sigma**2)


@pytest.mark.parametrize(
    "build",
    [
        lambda: MLPVAE((1, 12, 12), 4, (64,)),
        lambda: ConvVAE((1, 12, 12), 4, 16),
        lambda: NVPVAE((1, 12, 12), 4, "prior", 4, flow_hidden=(32,), width=16),
        lambda: NVPVAE((1, 12, 12), 4, "posterior", 4, flow_hidden=(32,), width=16),
        lambda: HierarchicalVAE((1, 12, 12), (2, 1), 16),
    ],
    ids=["mlp", "conv", "nvp-prior", "nvp-posterior", "hierarchical"],
)
def test_blobs_are_learnt(build, seeded):
    images, held_out = blobs(2000), blobs(500)
    windows, final, kl = train(
        build(), images, held_out, 300, 64, seeded(0), BLOB_SIGMA, rate=5e-3
    )
    share = final / mean_image_loss(images, held_out, BLOB_SIGMA)
    assert (windows.diff() < 0).all(), windows
    assert share < 0.5, share  # measured over four seeds: 0.15 (mlp), 0.24 to 0.40, 0.12 (layers)
    assert kl > 1, kl


# measured over these seeds: shares of 0.29 to 0.34, 0.28 to 0.29, 0.27 to 0.32, 0.27 to 0.28;
# of the layers over the first seed: 0.18
@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        ConvVAE,
        lambda: ConvVAE(output="sigmoid"),
        NVPVAE,
        lambda: NVPVAE(flow="posterior"),
        HierarchicalVAE,
    ],
    ids=["conv", "conv-sigmoid", "nvp-prior", "nvp-posterior", "hierarchical"],
)
def test_negative_elbo_on_mnist_falls_steadily(build, seeded):
    images, held_out = digits()
    yardstick = mean_image_loss(images, held_out)
    for seed in range(3):
        torch.manual_seed(seed)
        windows, final, kl = train(build(), images, held_out, 300, 128, seeded(seed))
        assert (windows.diff() < 0).all(), (seed, windows)
        assert final < 0.4 * yardstick, (seed, final / yardstick)
        assert kl > 15, (seed, kl)
