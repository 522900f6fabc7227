"""The units of the data: inputs and outputs move with them, each channel by its own numbers."""

import numpy as np
import pytest
import torch

from geco_models import MLPVAE, NVPVAE, ConvDraw, ConvVAE, LinearVAE, load

FAMILIES = {
    "linear": lambda **o: LinearVAE((2, 8, 8), 3, **o),
    "mlp": lambda **o: MLPVAE((2, 8, 8), 3, (8,), **o),
    "conv": lambda **o: ConvVAE((2, 8, 8), 3, 4, **o),
    "nvp": lambda **o: NVPVAE((2, 8, 8), 3, "prior", 2, width=4, **o),
    "convdraw": lambda **o: ConvDraw((2, 8, 8), 2, 2, 4, **o),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_data_in_other_units_are_the_same_to_the_networks(family, seeded):
    mean, scale = torch.tensor([3.0, -40.0]), torch.tensor([2.0, 0.5])
    plain = FAMILIES[family](input_mean=0.25, input_scale=0.5)
    other = FAMILIES[family](
        input_mean=(3.0 + 0.25 * 2.0, -40.0 + 0.25 * 0.5), input_scale=(0.5 * 2.0, 0.5 * 0.5)
    )
    own = other.state_dict()
    own.update(plain.state_dict())
    other.load_state_dict(own)
    x = torch.rand(3, 2, 8, 8)
    moved = mean[:, None, None] + scale[:, None, None] * x
    out, again = plain(x, generator=seeded(0)), other(moved, generator=seeded(0))
    torch.testing.assert_close(again.kl, out.kl, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        again.reconstruction,
        mean[:, None, None] + scale[:, None, None] * out.reconstruction,
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_survive_a_file(family, tmp_path):
    units = {"input_mean": np.array([1.5, -2.0]), "input_scale": torch.tensor([2.0, 3.0])}
    model = FAMILIES[family](**units)
    assert model.config["input_mean"] == [1.5, -2.0]
    model.save(tmp_path / "model.pt")
    loaded = load(tmp_path / "model.pt")
    assert loaded.config == model.config
    assert torch.equal(loaded.units.means, model.units.means)
    x = torch.rand(2, 2, 8, 8)
    torch.manual_seed(0)
    expected = model(x).reconstruction
    torch.manual_seed(0)
    assert torch.equal(loaded(x).reconstruction, expected)


def test_an_offset_of_ten_thousand_is_learnt():
    x = 1e4 + torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(3)
    model = ConvVAE((1, 8, 8), 4, 16, input_mean=x.mean().item(), input_scale=x.std().item())
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(300):
        out = model(x)
        loss = out.kl.mean() + (out.reconstruction - x).square().flatten(1).sum(1).mean() / 0.08
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rms = (model(x).reconstruction - x).square().mean().sqrt()
    assert rms < 0.4 * x.std()


def test_a_sigmoid_spans_the_range_of_the_data():
    model = MLPVAE((4,), 2, (8,), output="sigmoid", input_mean=-1.0, input_scale=2.0)
    with torch.no_grad():
        model.decoder.network[-1].bias.copy_(torch.tensor([-50.0, 50.0, 0.0, 0.0]))
    out = model(torch.zeros(3, 4)).reconstruction
    torch.testing.assert_close(out[:, 0], torch.full((3,), -1.0))
    torch.testing.assert_close(out[:, 1], torch.full((3,), 1.0))


def test_both_names_of_the_linear_models_scale_mean_the_same(seeded):
    old, new = LinearVAE(4, 2, scale=3.0), LinearVAE(4, 2, input_scale=3.0)
    new.load_state_dict(old.state_dict())
    x = torch.rand(3, 4)
    assert torch.equal(old(x, generator=seeded(0)).kl, new(x, generator=seeded(0)).kl)
    assert old.config == {"features": 4, "latents": 2, "scale": 3.0}
    with pytest.raises(ValueError, match="`scale` and `input_scale` are the same"):
        LinearVAE(4, 2, scale=3.0, input_scale=2.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_scale": 0.0}, ValueError, "`input_scale` must be positive, got 0.0"),
        ({"input_scale": (1.0, -1.0)}, ValueError, "`input_scale` must be positive"),
        ({"input_mean": float("inf")}, ValueError, "`input_mean` must be finite, got inf"),
        ({"input_mean": "0.5"}, TypeError, "`input_mean` must be a number, got '0.5'"),
        (
            {"input_mean": (1.0, 2.0, 3.0)},
            ValueError,
            r"or 2 \(one per channel\), got 3",
        ),
        ({"input_mean": None}, TypeError, "`input_mean` must be a number, got None"),
        ({"tolerance": (0.2, 0.1)}, ValueError, r"0 < low < high, got \(0.2, 0.1\)"),
        ({"tolerance": (0.0, 0.1)}, ValueError, "0 < low < high"),
        ({"tolerance": 0.1}, TypeError, r"`tolerance` must be a pair \(low, high\), got 0.1"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_options_are_refused(family, options, error, message):
    with pytest.raises(error, match=message):
        FAMILIES[family](**options)
