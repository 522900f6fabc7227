"""The modulation by a tolerance as a layer of somebody's own network."""

import math

import pytest
import torch
from torch import nn

from geco_models import ToleranceModulation


class Decoder(nn.Module):
    """A user's own decoder with a ready layer in it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 5)
        self.modulation = ToleranceModulation(8, (0.06, 0.2))

    def forward(self, z, kappa):
        return self.last(torch.relu(self.modulation(self.first(z), kappa)))


def test_a_fresh_layer_is_the_identity():
    layer = ToleranceModulation(4, (0.1, 1.0))
    for shape in ((3, 4), (3, 4, 5), (3, 4, 5, 6), (3, 4, 2, 2, 2)):
        hidden = torch.randn(shape)
        assert torch.equal(layer(hidden, 0.3), hidden)


def test_scales_and_shifts_are_those_of_the_formula():
    layer = ToleranceModulation(2, (0.1, 10.0), hidden=3)
    with torch.no_grad():
        layer.last.weight.normal_()
        layer.last.bias.normal_()
    kappa = torch.tensor([0.1, 1.0, 10.0, 0.5])
    hidden = torch.randn(4, 2, 3)
    place = torch.tensor([-1.0, 0.0, 1.0, math.log(0.5) / math.log(10.0)])[:, None]
    inner = torch.nn.functional.silu(place @ layer.first.weight.T + layer.first.bias)
    scale, shift = (inner @ layer.last.weight.T + layer.last.bias).chunk(2, dim=1)
    expected = hidden * (1 + scale[:, :, None]) + shift[:, :, None]
    torch.testing.assert_close(layer(hidden, kappa), expected)


def test_a_networks_own_decoder_learns_a_different_answer_for_each_tolerance():
    """Targets that depend on kappa alone: only the modulation can tell them apart."""
    decoder = Decoder()
    optimizer = torch.optim.Adam(decoder.parameters(), 0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        kappa = 0.06 * (0.2 / 0.06) ** torch.rand(64, generator=generator)
        z = torch.randn(64, 3, generator=generator)
        target = (10 * kappa)[:, None].expand(64, 5)
        loss = (decoder(z, kappa) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02 * target.var()


@pytest.mark.parametrize("kappa", [0.06, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_ends_of_the_range_are_inside_in_every_type(kappa, dtype):
    layer = ToleranceModulation(4, (0.06, 0.2))
    assert layer(torch.randn(2, 4), torch.full((2,), kappa, dtype=dtype)).shape == (2, 4)


def test_values_are_not_read_while_tracing():
    layer = ToleranceModulation(4, (0.06, 0.2))
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    hidden, kappa = torch.randn(3, 4), torch.full((3,), 0.1)
    torch.testing.assert_close(compiled(hidden, kappa), layer(hidden, kappa))
    each = torch.func.vmap(lambda h, k: layer(h[None], k[None])[0])(hidden, kappa)
    torch.testing.assert_close(each, layer(hidden, kappa))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ToleranceModulation(4, (0.2, 0.1)), ValueError, "0 < low < high"),
        (lambda: ToleranceModulation(4, (-1.0, 0.1)), ValueError, "0 < low < high"),
        (lambda: ToleranceModulation(4, (0.1, math.inf)), ValueError, "must be finite"),
        (lambda: ToleranceModulation(4, 0.1), TypeError, r"must be a pair \(low, high\)"),
        (lambda: ToleranceModulation(0, (0.1, 0.2)), ValueError, "`features` must be at least 1"),
        (
            lambda: ToleranceModulation(4, (0.1, 1.0))(torch.randn(3, 5), 0.5),
            ValueError,
            r"`hidden` must be \(batch, 4, ...\), got \(3, 5\)",
        ),
        (
            lambda: ToleranceModulation(4, (0.1, 1.0))(torch.randn(3, 4), 2.0),
            ValueError,
            r"`kappa` must be in \[0.1, 1\], the `tolerance` of this ToleranceModulation, got 2",
        ),
        (
            lambda: ToleranceModulation(4, (0.1, 1.0))(torch.randn(3, 4), torch.rand(2)),
            ValueError,
            r"`kappa` must be a number or \(3,\), one per example, got \(2,\)",
        ),
        (
            lambda: ToleranceModulation(4, (0.1, 1.0))(torch.randn(3, 4), None),
            TypeError,
            "`kappa` must be a number, got None",
        ),
    ],
)
def test_wrong_arguments_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
