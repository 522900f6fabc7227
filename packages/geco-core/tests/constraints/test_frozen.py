"""Frozen copies of networks that resist copying, or have no sizes yet."""

import pytest
import torch
from torch import nn

from geco_core.constraints.frozen import frozen

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


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
