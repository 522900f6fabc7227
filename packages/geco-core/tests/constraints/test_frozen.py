"""Networks inside of constraints: one copy for all, no part of parameters and state."""

import copy
import pickle

import pytest
import torch
from torch import nn

from geco_core import (
    GECO,
    ClassificationAccuracy,
    FeatureReconstructionError,
    NetworkFeatures,
    ReconstructionError,
)
from geco_core.constraints.frozen import frozen


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        return self.head(self.block(self.stem(images)).mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 6, 6, generator=generator)
    return x, torch.rand(2, 3, 6, 6, generator=generator).requires_grad_()


def inside(constraint):
    holder = getattr(constraint, "features", None) or constraint.classifier
    return holder.network.network if isinstance(holder, NetworkFeatures) else holder.network


def test_one_copy_for_all_as_long_as_the_network_is_the_same(network):
    first = FeatureReconstructionError(0.1, network)
    second = ClassificationAccuracy(0.9, network)
    third = FeatureReconstructionError(0.1, NetworkFeatures(network, "block"))
    assert inside(first) is inside(second) is inside(third)
    assert inside(copy.deepcopy(first)) is inside(first)
    assert not list(GECO({"a": first, "b": second, "c": third}).parameters())
    with torch.no_grad():
        network.head.weight.data.mul_(2.0)
    assert inside(FeatureReconstructionError(0.1, network)) is not inside(first)
    before = inside(first).head.weight.clone()
    first.double()
    assert inside(first).head.weight.dtype == torch.float64
    assert torch.equal(inside(second).head.weight, before)


def test_weights_are_in_the_state_only_if_asked_for(network, images):
    assert list(FeatureReconstructionError(0.1, network).state_dict()) == ["_extra_state"]
    asked = FeatureReconstructionError(0.1, network, in_state=True)
    state = asked.state_dict()
    assert torch.equal(state["features.head.weight"], network.head.weight)
    other = FeatureReconstructionError(0.1, Network(), in_state=True)
    other.load_state_dict(state)
    assert torch.equal(other(*images), asked(*images))
    # as the first version saved a method's module
    old = {k.replace("features.", "features.module."): v for k, v in state.items()}
    other = FeatureReconstructionError(0.1, Network().forward)
    other.load_state_dict(old)
    assert torch.equal(other(*images), asked(*images))


def test_layers_by_name_and_normalised_images(network, images):
    x, g = images
    features = NetworkFeatures(
        network, ["stem.0", "block"], mean=[0.1, 0.2, 0.3], std=torch.tensor([1.0, 2.0, 4.0])
    )
    plain = copy.deepcopy(network).eval()
    normal = (x - torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)) / torch.tensor(
        [1.0, 2.0, 4.0]
    ).reshape(3, 1, 1)
    first, second = features(x)
    torch.testing.assert_close(first, plain.stem[0](normal))
    torch.testing.assert_close(second, plain.block(plain.stem(normal)))
    assert not inside(FeatureReconstructionError(0.1, features)).block._forward_hooks
    FeatureReconstructionError(0.1, features)(x, g).sum().backward()
    assert g.grad.isfinite().all()
    assert all(p.grad is None for p in network.parameters())
    with pytest.raises(ValueError, match=r"'blocks'.*stem, stem.0"):
        NetworkFeatures(network, "blocks")
    with pytest.raises(ValueError, match="`std`"):
        NetworkFeatures(network, std=0.0)
    with pytest.raises(TypeError, match="`network`"):
        NetworkFeatures(lambda images: images)


def test_outputs_as_transformers_return_them(images):
    """A mapping with None for what was not asked for, and tuples within."""

    class Encoder(nn.Module):
        def forward(self, images):
            return {"last": images * 2, "pooled": None, "hidden": (images, images + 1)}

    x, g = images
    violation = FeatureReconstructionError(0.1, Encoder())(x, g)
    squares = (x - g).square().flatten(1).mean(1)
    torch.testing.assert_close(violation, (4 + 1 + 1) / 3 * squares - 0.01)


def test_autocast_is_as_asked_for(network, images):
    x, _ = images
    half = NetworkFeatures(network, "block", autocast=torch.bfloat16)(x)
    assert half[0].dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert NetworkFeatures(network, "block", autocast=False)(x)[0].dtype == torch.float32
        assert NetworkFeatures(network, "block")(x)[0].dtype == torch.bfloat16
    with pytest.raises(TypeError, match="`autocast`"):
        NetworkFeatures(network, autocast=True)


def test_a_network_without_values_is_said(network):
    constraint = FeatureReconstructionError(0.1, network.to("meta"))
    with pytest.raises(RuntimeError, match="built on the meta device"):
        constraint.to_empty(device="cpu")


class Metric(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x, reconstruction):
        return (self.norm(x) - self.norm(reconstruction)).square().mean(1) - 0.1


@pytest.mark.parametrize("how", ["eval", "frozen"])
def test_a_metric_stays_frozen(how):
    metric = Metric().eval() if how == "eval" else Metric().requires_grad_(False)
    objective = GECO(metric)
    objective.eval()
    objective.train()
    assert not metric.training
    assert not list(objective.parameters())
    assert not [key for key in objective.state_dict() if "norm" in key]
    assert objective.constraints["constraint"].function is metric
    x, g = torch.randn(8, 3), torch.randn(8, 3, requires_grad=True)
    objective(torch.ones(8), x, g).backward()
    assert metric.norm.num_batches_tracked == 0
    objective.double()(torch.ones(8).double(), x.double(), g.double())


def test_a_metric_that_learns_belongs_to_the_objective():
    objective = GECO(Metric())
    assert len(list(objective.parameters())) == 2
    assert objective.train().constraints["constraint"].function.training


def test_pickles_say_what_they_could_not_take_along():
    objective = GECO({"mine": lambda x, r: r[:, 0], "RE": ReconstructionError(0.1)})
    x, g = torch.zeros(2, 1), torch.ones(2, 1, requires_grad=True)
    copy.deepcopy(objective)(torch.ones(2), x, g)
    twin = pickle.loads(pickle.dumps(objective))
    with pytest.raises(RuntimeError, match="could not take along the function"):
        twin(torch.ones(2), x, g)
    kept = pickle.loads(pickle.dumps(GECO(at_top)))
    kept(torch.ones(2), x, g)


def at_top(x, reconstruction):
    return reconstruction[:, 0] - 0.5


at_top.__module__ = "__main__"
__import__("__main__").at_top = at_top  # test modules cannot be imported by name


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_module_that_keeps_a_computed_weight_is_copied():
    """The first weight_norm leaves a weight with a graph on the module, which cannot be copied."""
    module = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 3)))
    x = torch.rand(4, 6)
    expected = module(x)
    copy = frozen(module, "classifier")
    torch.testing.assert_close(copy(x), expected.detach())
    with torch.no_grad():
        module[0].weight_g.mul_(2)
    torch.testing.assert_close(copy(x), expected.detach())
    x.requires_grad_()
    copy(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("lazy", [nn.LazyLinear(3), nn.LazyBatchNorm1d()], ids=["linear", "norm"])
def test_a_lazy_module_is_refused_until_it_has_sizes(lazy):
    module = nn.Sequential(lazy)
    with pytest.raises(RuntimeError, match=r"`classifier` .* has no size yet; call it once") as e:
        frozen(module, "classifier")
    assert "\n" not in str(e.value)
    module(torch.rand(4, 6))
    assert frozen(module, "classifier")(torch.rand(4, 6)).shape[0] == 4
