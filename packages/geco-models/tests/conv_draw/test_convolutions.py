"""Convolutions shared by steps: gradients computed once are those of each step's own."""

import gc
import weakref

import pytest
import torch

from geco_models import ConvDraw
from geco_models.conv_draw import unrolled
from geco_models.conv_draw.convolutions import Convolution, shared


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


@pytest.mark.parametrize("defer", [True, False])
@pytest.mark.parametrize("option", OPTIONS)
def test_shared_uses_have_the_gradients_of_plain_ones(option, defer):
    plain = given(**OPTIONS[option])
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    uses = shared(plain, 3, 2, (5, 5), defer)
    mine, expected = chained(uses, x), chained([plain] * 3, x)
    torch.testing.assert_close(mine, expected)
    inputs = [x, *(t for t in plain[:3] if t is not None)]
    weights = torch.randn_like(mine)
    found = torch.autograd.grad(mine, inputs, weights)
    torch.testing.assert_close(found, torch.autograd.grad(expected, inputs, weights))


@pytest.mark.parametrize("defer", [True, False])
def test_passes_over_one_graph_do_not_mix(defer):
    """First to the data alone, then from one use alone, then everything: each is right."""
    plain = given()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    uses = shared(plain, 3, 2, (5, 5), defer)
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


@pytest.mark.parametrize("defer", [True, False])
def test_frozen_weights_let_gradients_through(defer):
    plain = given(requires_grad=False)
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(chained(shared(plain, 2, 2, (5, 5), defer), x).sum(), x)
    torch.testing.assert_close(found, torch.autograd.grad(chained([plain] * 2, x).sum(), x)[0])


@pytest.mark.parametrize("defer", [True, False])
def test_nothing_is_kept_after_the_backward_pass(defer):
    """What the uses met is let go then, not with the loss."""
    plain = given()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    uses = shared(plain, 3, 2, (5, 5), defer)
    loss = chained(uses, x).sum()
    loss.backward(retain_graph=True)
    assert not any(use.met for use in uses)
    torch.autograd.grad(loss, x)
    assert len(uses[0].met) == 3  # the weight was not asked for
    watch = weakref.ref(uses[0].met[1][0])
    del loss, uses
    gc.collect()
    assert watch() is None


@pytest.mark.parametrize("defer", [True, False])
def test_a_weight_changed_in_between_is_noticed(defer):
    plain = given()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    loss = chained(shared(plain, 2, 2, (5, 5), defer), x).sum()
    with torch.no_grad():
        plain.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("defer", [True, False])
@pytest.mark.parametrize("steps", [2, 3, 5])
def test_the_model_has_the_gradients_of_plain_steps(steps, defer, seeded, monkeypatch):
    monkeypatch.setattr(
        unrolled, "shared", lambda *given: shared(*given[:-1], defer)
    )  # as on a CPU, and as elsewhere
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
