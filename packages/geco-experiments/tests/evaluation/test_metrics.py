import contextlib
import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal

from geco_core import ReconstructionError
from geco_experiments.datasets.base import ImageData, Split
from geco_experiments.evaluation.metrics import evaluate, gaussian_nll
from geco_experiments.runtime.distributed import Ranks
from geco_experiments.runtime.random_streams import stream_seed
from geco_experiments.training import record as records


class Shifted(torch.nn.Module):
    """Reconstructs every image too bright by a known amount, at a known KL that differs."""

    def __init__(self, shift):
        super().__init__()
        self.shift = shift

    def forward(self, x, context=None, generator=None):
        kl = x.flatten(1).sum(1)
        steps = torch.stack([0.25 * kl, 0.75 * kl], 1)
        return SimpleNamespace(reconstruction=x + self.shift, kl=kl, kl_steps=steps)

    def posterior(self, x, context=None):
        count = len(x)
        mean, log_variance = torch.zeros(count, 2), torch.zeros(count, 2)
        return SimpleNamespace(
            mean=mean,
            log_variance=log_variance,
            sample=lambda generator: torch.randn(count, 2, generator=generator),
            log_prob=lambda z: Normal(0.0, 1.0).log_prob(z).sum(1),
        )

    def prior_log_prob(self, z, context=None):
        return Normal(0.0, 1.0).log_prob(z).sum(1)


@pytest.fixture
def toy():
    generator = torch.Generator().manual_seed(0)
    stored = torch.randint(256, (23, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageData("toy", Split(stored), Split(stored[:7]))


def measure(toy, config, split="train", ranks=None):
    constraints = {"re": ReconstructionError(0.2)}
    return evaluate(
        Shifted(0.3), constraints, toy, split, config, ranks or Ranks(), contextlib.nullcontext
    )


@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_means_over_the_whole_split_whatever_the_batches(toy, tiny, size):
    result = measure(toy, tiny(**{"training.evaluation_batch_size": size}))
    kl = toy.train.images.double().flatten(1).sum(1) / 255
    assert result.images == 23
    assert result.elements == 16
    assert result.rms_error == pytest.approx(0.3, abs=1e-6)
    assert result.constraint == pytest.approx(0.09 - 0.04, abs=1e-6)
    assert result.kl == pytest.approx(kl.mean().item(), rel=1e-6)
    assert result.kl_error == pytest.approx((kl.std(correction=0) / math.sqrt(23)).item())
    assert sum(result.kl_steps) == pytest.approx(result.kl)
    assert result.kl_steps[0] == pytest.approx(0.25 * result.kl)
    assert result.marginal.posteriors == 20
    assert abs(result.marginal.marginal_kl) < 1e-6


def test_held_out_and_no_marginal(toy, tiny):
    result = measure(toy, tiny(**{"training.marginal_samples": 0}), "test")
    assert result.images == 7
    assert result.marginal is None


def test_shares_of_ranks_add_up(toy, tiny, monkeypatch):
    config = tiny(**{"training.evaluation_batch_size": 4})
    whole = measure(toy, config)
    # each rank in turn, the reductions replaced by notes of what would be summed
    sums = []
    monkeypatch.setattr(
        "geco_experiments.evaluation.metrics._joined",
        lambda total, elements, ranks, device: (sums.append(total) or total, elements),
    )
    for rank in range(3):
        measure(toy, config, ranks=Ranks(rank, 3))
    mse = sum(total[0] for total in sums).item() / 23
    assert mse == pytest.approx(whole.mse, rel=1e-12)


def test_gaussian_likelihood():
    x = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    expected = -Normal(0.0, 0.7).log_prob(x).sum().item()
    assert gaussian_nll(x.square().mean().item(), 3, 0.49) == pytest.approx(expected)
    # the fitted variance is the best one
    best = gaussian_nll(0.01, 64, 0.01)
    assert all(gaussian_nll(0.01, 64, v) > best for v in (0.005, 0.009, 0.011, 1.0))


def test_seeds_of_purposes_differ():
    seeds = {stream_seed(s, p, i) for s in range(5) for p in range(5) for i in range(20)}
    assert len(seeds) == 500


def test_pictures_are_rounded_not_cut():
    images = torch.tensor([[-0.5, 0.0, 0.5, 254.6 / 255]]).reshape(1, 4)
    assert records._bytes(images, (1, 2, 2)).ravel().tolist() == [0, 0, 128, 255]
