"""The model families that every contract test runs, small enough to be compiled."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from geco_models import MLPVAE, NVPVAE, AbstractVAE, ConvDraw, ConvVAE, LinearVAE

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
# tracing takes seconds, so the fast tests compile one member of each family, the slow ones all
COMPILED = {"linear", "mlp", "conv", "nvp-prior", "nvp-posterior", "convdraw"}


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from one state of the global generator and leaves it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(params=FAMILIES, ids=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> AbstractVAE:
    """One model of each family, with seeded weights."""
    return FAMILIES[request.param]()


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name in COMPILED else pytest.mark.slow) for name in FAMILIES
    ]
)
def compiled_model(request: pytest.FixtureRequest) -> AbstractVAE:
    """One model of each family, for tests that compile it."""
    torch.compiler.reset()
    return FAMILIES[request.param]()


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
def seeded() -> Callable[[int], torch.Generator]:
    """Makes a generator with a seed."""
    return lambda seed: torch.Generator().manual_seed(seed)
