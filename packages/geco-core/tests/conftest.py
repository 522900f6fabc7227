"""A small VAE, and objectives in a loop as users write it."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from geco_core import GECO


class TinyVAE(nn.Module):
    """Four features, two latents."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(2, 4)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + noise * (0.5 * log_variance).exp()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return self.decoder(z), kl


@dataclass
class Loop:
    """A training loop whose randomness is its own."""

    objective: nn.Module
    seed: int = 0
    rate: float = 1e-2

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.model = TinyVAE()
        self.optimizer = torch.optim.Adam(self.model.parameters(), self.rate)
        self.generator = torch.Generator().manual_seed(self.seed)

    def batch(self, size: int = 16) -> tuple[Tensor, Tensor]:
        scale = torch.tensor([2.0, 1.0, 0.5, 0.1])
        x = torch.randn(size, 4, generator=self.generator) * scale
        return x, torch.randn(size, 2, generator=self.generator)

    def run(self, steps: int, size: int = 16) -> list[Tensor]:
        losses = []
        for _ in range(steps):
            x, noise = self.batch(size)
            reconstruction, kl = self.model(x, noise)
            loss = self.objective(kl, x, reconstruction)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.objective.step()
            losses.append(loss.detach())
        return losses


@pytest.fixture
def loop() -> Callable[..., Loop]:
    return Loop


@pytest.fixture
def feed() -> Callable[..., Tensor]:
    """Feeds a GECO objective with violations of its constraints as given, one ascent each."""

    def feed(objective: GECO, *violations: float | list[float], examples: int = 4) -> Tensor:
        names = list(objective.constraints)
        for violation in violations:
            values = violation if isinstance(violation, list) else [violation] * len(names)
            x = torch.zeros(examples, 1)
            knob = torch.zeros(examples, requires_grad=True)
            batch = {name: value + knob for name, value in zip(names, values, strict=True)}
            loss = objective(1.0 + knob, x, x, **batch)
            objective.step()
        return loss

    return feed


@pytest.fixture
def given() -> Callable[[str], Callable[..., Tensor]]:
    """A constraint whose violation is passed as a keyword of its own name."""

    def given(name: str) -> Callable[..., Tensor]:
        def violation(x: Tensor, reconstruction: Tensor, **batch: Tensor) -> Tensor:
            return batch[name]

        return violation

    return given
