"""Channels padded for half precision: multiples of 8 inside, the same results outside."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from geco_models import ConvDraw
from geco_models.conv_draw.alignment import AlignedConv2d, widened


class Channels(TorchDispatchMode):
    """Records batch size, channels and type of what every convolution reads."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        place = {"aten::convolution": 0, "aten::convolution_backward": 1}.get(func._schema.name)
        if place is not None:
            planes = args[place]
            self.seen.append((len(planes), planes.shape[1], planes.dtype))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"canvas": 5}, {"latent_channels": 3, "hidden": 12}])
def test_half_precision_convolves_multiples_of_eight(options):
    mode = FakeTensorMode()
    model = ConvDraw((3, 16, 16), **{"steps": 3, "latent_channels": 8, "hidden": 16, **options})
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = mode.from_tensor(parameter.detach())
                module._parameters[name] = torch.nn.Parameter(fake)
    with mode, torch.autocast("cpu", torch.bfloat16), Channels() as channels:
        out = model(torch.rand(2, 3, 16, 16))
        out.kl.sum().backward()
    assert {kind for *_, kind in channels.seen} == {torch.bfloat16}
    # a batch of one is the first prior's and the first states'
    whole = [count for batch, count, _ in channels.seen if batch > 1]
    assert len(whole) > 20
    assert {count % 8 for count in whole} == {0}


@pytest.mark.parametrize("options", [{}, {"canvas": 5}, {"likelihood": "heteroscedastic"}])
def test_padding_changes_no_result(options, seeded):
    """Odd channel counts under autocast stay near full precision, shapes and state as they are."""
    model = ConvDraw((1, 9, 8), **{"steps": 3, "latent_channels": 3, "hidden": 5, **options})
    plain = ConvDraw((1, 9, 8), **{"steps": 3, "latent_channels": 3, "hidden": 5, **options})
    plain.load_state_dict(model.state_dict())
    x = torch.rand(4, 1, 9, 8)
    full = plain(x, generator=seeded(0))
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x, generator=seeded(0))
    assert half.latents.shape == full.latents.shape
    assert half.kl_per_dimension.shape == full.kl_per_dimension.shape
    torch.testing.assert_close(
        half.reconstruction.float(), full.reconstruction, atol=0.05, rtol=0.05
    )
    torch.testing.assert_close(half.latents, full.latents, atol=0.1, rtol=0.05)
    torch.testing.assert_close(half.kl, full.kl, atol=0.2, rtol=0.1)
    half.kl.sum().backward()
    full.kl.sum().backward()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            assert mine.grad.shape == mine.shape
            scale = float(theirs.grad.abs().max()) + 1e-3
            torch.testing.assert_close(mine.grad, theirs.grad, atol=0.15 * scale, rtol=0.2)


def test_groups_are_widened_each_by_itself():
    weight = torch.arange(5.0).bfloat16()
    found = widened(weight, 0, [2, 3])
    assert found.tolist() == [0, 1, *[0] * 6, 2, 3, 4, *[0] * 5]
    assert widened(weight.float(), 0, [2, 3]).tolist() == [0, 1, 2, 3, 4]


def test_an_aligned_convolution_is_a_convolution():
    aligned = AlignedConv2d(3, 4, 3, padding="same")
    plain = torch.nn.Conv2d(3, 4, 3, padding="same")
    plain.load_state_dict(aligned.state_dict())
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(aligned(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(aligned(x), plain(x))
