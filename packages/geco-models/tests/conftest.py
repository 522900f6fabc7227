"""The model families that every contract test runs, small enough to be compiled."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from geco_models import (
    MLPVAE,
    NVPVAE,
    AbstractVAE,
    ConvDraw,
    ConvVAE,
    HierarchicalVAE,
    LinearVAE,
    StackedConvDraw,
    ToleranceModulation,
)

RANGE = (0.05, 0.2)


def trained(model: AbstractVAE) -> AbstractVAE:
    """The model with modulations that do something: fresh ones are the identity."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ToleranceModulation):
                module.last.weight.normal_(std=0.3)
        flow = getattr(model, "flow", None)
        if model.tolerance is not None and flow is not None and flow.context is not None:
            flow.context.weight.normal_(std=0.3)
    return model


FAMILIES: dict[str, Callable[[], AbstractVAE]] = {
    "linear": lambda: LinearVAE(6, 3),
    "linear-image": lambda: LinearVAE((1, 4, 5), 3, scale=0.5),
    "mlp": lambda: MLPVAE((2, 5), 3, (16, 8), output="sigmoid"),
    "mlp-conditional": lambda: MLPVAE((7,), 3, (16,), context_shape=(2, 3, 3)),
    "conv": lambda: ConvVAE((1, 28, 28), 4, 8),
    "conv-odd-sigmoid": lambda: ConvVAE((3, 17, 23), 4, 8, output="sigmoid"),
    "conv-conditional-planes": lambda: ConvVAE((1, 16, 16), 4, 8, context_shape=(2, 12, 9)),
    "conv-conditional-vector": lambda: ConvVAE((1, 8, 8), 4, 8, context_shape=(5,)),
    "nvp-prior": lambda: NVPVAE((1, 12, 12), 5, "prior", 2, flow_hidden=(16,), width=8),
    "nvp-prior-conditional": lambda: NVPVAE(
        (1, 12, 12), 4, "prior", 2, flow_hidden=(16,), width=8, context_shape=(3,)
    ),
    "nvp-posterior": lambda: NVPVAE((9,), 5, "posterior", 2, flow_hidden=(16,), hidden=(16,)),
    "nvp-posterior-conditional": lambda: NVPVAE(
        (1, 8, 8), 4, "posterior", 2, flow_hidden=(16,), width=8, context_shape=(1, 8, 8)
    ),
    "convdraw": lambda: ConvDraw((1, 12, 12), steps=2, latent_channels=2, hidden=8),
    "convdraw-conditional": lambda: ConvDraw(
        (1, 12, 12), steps=2, latent_channels=2, hidden=8, context_shape=(3,), shared=False
    ),
}
OPTIONS: dict[str, Callable[[], AbstractVAE]] = {
    "conv-signal": lambda: ConvVAE((2, 30), 4, 8),
    "conv-volume": lambda: ConvVAE((1, 9, 8, 10), 4, 8),
    "conv-video": lambda: ConvVAE((3, 4, 8, 8), 4, 8, input_mean=(0.1, 0.2, 0.3)),
    "linear-units": lambda: LinearVAE(3, 2, input_mean=(1.0, 2.0, 3.0), input_scale=[0.5, 1, 2]),
    "mlp-gaussian": lambda: MLPVAE((6,), 3, (8,), likelihood="gaussian", input_mean=-2.0),
    "mlp-bernoulli": lambda: MLPVAE((6,), 3, (8,), likelihood="bernoulli"),
    "conv-heteroscedastic": lambda: ConvVAE(
        (3, 8, 8), 4, 8, likelihood="heteroscedastic", input_scale=(0.5, 1.0, 2.0)
    ),
    "nvp-logistic": lambda: NVPVAE(
        (1, 8, 8), 4, "prior", 2, flow_hidden=(16,), width=8, likelihood="logistic"
    ),
    "convdraw-heteroscedastic": lambda: ConvDraw(
        (1, 7, 8), 2, 2, 8, canvas=3, likelihood="heteroscedastic", input_mean=0.3
    ),
    "convdraw-bernoulli": lambda: ConvDraw((1, 8, 8), 2, 2, 8, likelihood="bernoulli"),
}
TOLERANCES: dict[str, Callable[[], AbstractVAE]] = {
    "linear-tolerance": lambda: LinearVAE(6, 3, tolerance=RANGE),
    "mlp-tolerance": lambda: MLPVAE((6,), 3, (8, 7), context_shape=(2,), tolerance=RANGE),
    "conv-tolerance": lambda: ConvVAE((1, 17, 16), 4, 8, tolerance=RANGE, likelihood="gaussian"),
    "nvp-prior-tolerance": lambda: NVPVAE(
        (7,), 4, "prior", 2, flow_hidden=(16,), hidden=(8,), tolerance=RANGE
    ),
    "nvp-prior-conditional-tolerance": lambda: NVPVAE(
        (7,), 4, "prior", 2, flow_hidden=(16,), hidden=(8,), context_shape=(2,), tolerance=RANGE
    ),
    "nvp-posterior-tolerance": lambda: NVPVAE(
        (1, 8, 8), 4, "posterior", 2, flow_hidden=(16,), width=8, tolerance=RANGE
    ),
    "convdraw-tolerance": lambda: ConvDraw((1, 8, 8), 2, 2, 8, tolerance=RANGE),
    "convdraw-unshared-tolerance": lambda: ConvDraw(
        (1, 8, 8), 2, 2, 8, (2, 4, 4), shared=False, tolerance=RANGE, likelihood="logistic"
    ),
}
HIERARCHIES: dict[str, Callable[[], AbstractVAE]] = {
    "hierarchical": lambda: HierarchicalVAE((1, 9, 12), (2, 1), 8),
    "hierarchical-three": lambda: HierarchicalVAE(
        (3, 16, 17), (2, 1, 1), 6, context_shape=(3,), likelihood="heteroscedastic"
    ),
    "hierarchical-tolerance": lambda: HierarchicalVAE((1, 8, 8), (1, 1), 6, tolerance=RANGE),
    "stacked-draw": lambda: StackedConvDraw((1, 9, 8), 2, 2, (2, 1), 6),
    "stacked-draw-conditional": lambda: StackedConvDraw(
        (3, 8, 8), 2, 3, 1, 6, (2, 4, 4), shared=False, canvas=4, likelihood="heteroscedastic"
    ),
    "stacked-draw-tolerance": lambda: StackedConvDraw(
        (1, 8, 8), 2, 2, 1, 6, (3,), tolerance=RANGE
    ),
}
FAMILIES |= OPTIONS | TOLERANCES | HIERARCHIES
# tracing takes seconds, so the fast tests compile one member of each family, the slow ones all
COMPILED = {
    "linear",
    "mlp",
    "conv",
    "nvp-prior",
    "nvp-posterior",
    "convdraw",
    "mlp-tolerance",
    "hierarchical",
    "stacked-draw",
}


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from one state of the global generator and leaves it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(params=FAMILIES, ids=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> AbstractVAE:
    """One model of each family, with seeded weights."""
    return trained(FAMILIES[request.param]())


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name in COMPILED else pytest.mark.slow) for name in FAMILIES
    ]
)
def compiled_model(request: pytest.FixtureRequest) -> AbstractVAE:
    """One model of each family, for tests that compile it."""
    torch.compiler.reset()
    return trained(FAMILIES[request.param]())


@pytest.fixture
def inputs() -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Makes data and, for a conditional model, context."""

    def make(model: AbstractVAE, batch: int = 3) -> tuple[Tensor, Tensor | None]:
        like = model.reference()
        x = torch.rand(batch, *model.shape, dtype=like.dtype)
        if model.context_shape is None:
            return x, None
        return x, torch.rand(batch, *model.context_shape, dtype=like.dtype)

    return make


@pytest.fixture
def asked() -> Callable[[AbstractVAE], dict[str, float]]:
    """Makes the keyword arguments that a model needs beside data and context."""
    return lambda model: {} if model.tolerance is None else {"kappa": 0.08}


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    """Makes a generator with a seed."""
    return lambda seed: torch.Generator().manual_seed(seed)
