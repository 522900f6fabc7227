"""Convolutions shared by steps, and channels padded for half precision."""

import gc
import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from geco_models import ConvDraw
from geco_models.conv_draw.convolutions import AlignedConv2d, Convolution, shared, widened


def given(bias=True, offset=None, groups=1, requires_grad=True):
    """A convolution of 4 to 6 channels with what it adds."""
    tensors = [torch.randn(6, 4 // groups, 3, 3), torch.randn(6) if bias else None]
    tensors.append(None if offset is None else torch.randn(offset))
    tensors = [t if t is None else t.double().requires_grad_(requires_grad) for t in tensors]
    return Convolution(*tensors, groups)


def chained(convolutions, x):
    """Each reads what the one before made."""
    for convolution in convolutions:
        x = torch.tanh(convolution.apply(x))[:, :4]
    return x


OPTIONS = {
    "plain": {"bias": False},
    "bias": {},
    "offset": {"offset": (2, 6, 5, 5)},
    "offset-one": {"offset": (1, 6, 1, 1)},
    "groups": {"groups": 2},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_shared_uses_have_the_gradients_of_plain_ones(option):
    plain = given(**OPTIONS[option])
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    uses = shared(plain, 3, 2, (5, 5))
    mine, expected = chained(uses, x), chained([plain] * 3, x)
    torch.testing.assert_close(mine, expected)
    inputs = [x, *(t for t in plain[:3] if t is not None)]
    weights = torch.randn_like(mine)
    found = torch.autograd.grad(mine, inputs, weights)
    torch.testing.assert_close(found, torch.autograd.grad(expected, inputs, weights))


def test_passes_over_one_graph_do_not_mix():
    """First to the data alone, then from one use alone, then everything: each is right."""
    plain = given()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    uses = shared(plain, 3, 2, (5, 5))
    first = uses[0].apply(x)
    last = chained(uses[1:], first[:, :4])
    torch.autograd.grad(last.sum(), x, retain_graph=True)
    for found, expected in (
        (first, plain.apply(x)),
        (last, chained([plain] * 2, plain.apply(x)[:, :4])),
    ):
        for _ in range(2):
            (mine,) = torch.autograd.grad(found.sum(), plain.weight, retain_graph=True)
            (theirs,) = torch.autograd.grad(expected.sum(), plain.weight, retain_graph=True)
            torch.testing.assert_close(mine, theirs)


def test_frozen_weights_let_gradients_through():
    plain = given(requires_grad=False)
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(chained(shared(plain, 2, 2, (5, 5)), x).sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad(chained([plain] * 2, x).sum(), x)[0])


def test_nothing_is_kept_after_the_backward_pass():
    """What the uses met is let go then, not with the loss."""
    plain = given()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    uses = shared(plain, 3, 2, (5, 5))
    loss = chained(uses, x).sum()
    loss.backward(retain_graph=True)
    assert not any(use.met for use in uses)
    torch.autograd.grad(loss, x)
    assert len(uses[0].met) == 3  # the weight was not asked for
    watch = weakref.ref(uses[0].met[1])
    del loss, uses
    gc.collect()
    assert watch() is None


def test_a_weight_changed_in_between_is_noticed():
    plain = given()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    loss = chained(shared(plain, 2, 2, (5, 5)), x).sum()
    with torch.no_grad():
        plain.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("steps", [2, 3, 5])
def test_the_model_has_the_gradients_of_plain_steps(steps, seeded):
    model = ConvDraw((1, 8, 8), steps, 2, 5, context_shape=(3,)).double()
    x, context = torch.rand(2, 1, 8, 8).double(), torch.rand(2, 3).double()
    gradients = []
    for plain in (False, True):
        if plain:  # a step of one's own gets plain weights
            model.infer_step = lambda *arguments: ConvDraw.infer_step(model, *arguments)
        model.zero_grad()
        out = model(x, context, seeded(0))
        (out.kl.sum() + (out.reconstruction - x).square().sum()).backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


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
