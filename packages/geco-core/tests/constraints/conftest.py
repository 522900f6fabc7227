"""One instance of every constraint, and keywords that it needs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geco_core.constraints import (
    ClassificationAccuracy,
    FeatureReconstructionError,
    LocalMoments,
    PatchCrossCorrelation,
    ReconstructionError,
    ToleranceConstraint,
)

CHANNELS = 2
CLASSES = 5


class Network(nn.Module):
    """Has what must be frozen: parameters, batch statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(CHANNELS, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(4, CLASSES)

    def activations(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first = self.body(images)
        return first, first.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.activations(images)[1])


MAKERS: dict[str, Callable[[float], ToleranceConstraint]] = {
    "RE": lambda kappa: ReconstructionError(kappa),
    "FRE-moments": lambda kappa: FeatureReconstructionError(kappa, LocalMoments(3)),
    "FRE-network": lambda kappa: FeatureReconstructionError(kappa, Network().activations),
    "CLA": lambda kappa: ClassificationAccuracy(kappa, Network()),
    "PNCC": lambda kappa: PatchCrossCorrelation(kappa, 3),
    "PNCC-per-channel": lambda kappa: PatchCrossCorrelation(kappa, (3, 4), 2, per_channel=True),
}


@pytest.fixture
def network() -> Network:
    torch.manual_seed(1)
    return Network()


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[float], ToleranceConstraint]:
    """Makes a constraint with a given kappa; one after the other of all kinds."""

    def build(kappa: float) -> ToleranceConstraint:
        torch.manual_seed(1)
        return MAKERS[request.param](kappa)

    return build


@pytest.fixture
def images() -> tuple[Tensor, Tensor, Tensor]:
    """Data, a reconstruction that needs a gradient, and labels."""
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(3, CHANNELS, 7, 8, generator=generator)
    reconstruction = torch.rand(3, CHANNELS, 7, 8, generator=generator)
    labels = torch.tensor([0, 4, 2])
    return x, reconstruction.requires_grad_(), labels
