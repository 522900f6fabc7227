"""Missing elements: what they hold reaches neither posterior nor density."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from geco_models import MLPVAE, ConvVAE, ObservedElements, length_mask

SEQUENCES = ConvVAE((2, 40), 4, 8, input_mean=3.0, input_scale=2.0)


@pytest.fixture
def model_with_inputs(model, inputs, asked, seeded):
    """One model of each family, data, whatever else it asks for, and seeded generators."""
    x, context = inputs(model)
    return model, x, {"context": context, **asked(model)}, seeded


def sequences(batch=3):
    return 3 + 2 * torch.randn(batch, 2, 40), torch.tensor([40, 17, 0][:batch])


def test_lengths_are_masks_for_all_channels():
    mask = length_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.shape == (3, 1, 3)
    assert mask.sum(2).flatten().tolist() == [0, 2, 3]
    assert mask[1, 0].tolist() == [True, True, False]
    with FakeTensorMode():
        assert length_mask(torch.tensor([1, 2]), 5).shape == (2, 1, 5)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1, 2], TypeError, "got list"),
        (torch.tensor([1.0]), TypeError, "got torch.float32"),
        (torch.tensor([True]), TypeError, "got torch.bool"),
        (torch.tensor([[1]]), ValueError, r"must be \(batch,\), got \(1, 1\)"),
        (torch.tensor([1, 5]), ValueError, "0 to 4, the padded length, got 5"),
        (torch.tensor([-1]), ValueError, "got -1"),
    ],
)
def test_wrong_lengths_are_named(lengths, error, message):
    with pytest.raises(error, match=message):
        length_mask(lengths, 4)


@pytest.mark.parametrize("padding", [0.0, -1e30, math.nan, math.inf])
def test_what_padding_holds_changes_nothing(padding, model_with_inputs):
    model, x, asked, seeded = model_with_inputs
    mask = torch.rand(x.shape) > 0.4
    mask[0] = True
    broken = torch.where(mask, x, padding)
    plain = model(x, generator=seeded(0), mask=mask, **asked)
    out = model(broken, generator=seeded(0), mask=mask, **asked)
    for name in ("reconstruction", "kl", "latents", "kl_per_dimension"):
        value = getattr(out, name)
        if value is not None:
            assert value.isfinite().all()
            assert torch.equal(value, getattr(plain, name)), name
    z = plain.latents
    assert torch.equal(
        model.posterior(broken, mask=mask, **asked).log_prob(z),
        model.posterior(x, mask=mask, **asked).log_prob(z),
    )
    (out.kl.sum() + out.reconstruction.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_mask_of_everything_is_no_mask(model_with_inputs):
    model, x, asked, seeded = model_with_inputs
    everything = torch.ones([1] * x.dim(), dtype=torch.bool)
    found = model(x, generator=seeded(0), mask=everything, **asked)
    expected = model(x, generator=seeded(0), **asked)
    torch.testing.assert_close(found.kl, expected.kl)
    torch.testing.assert_close(found.reconstruction, expected.reconstruction)


def test_observed_elements_matter():
    x, lengths = sequences()
    mask = length_mask(lengths, 40)
    x.requires_grad_()
    SEQUENCES.posterior(x, mask=mask).mean.square().sum().backward()
    reached = (x.grad != 0).any(1)
    assert not reached[~mask[:, 0]].any()
    assert reached[0].float().mean() > 0.9


@pytest.mark.parametrize("likelihood", ["gaussian", "heteroscedastic", "bernoulli", "logistic"])
def test_densities_count_what_was_observed(likelihood, seeded):
    model = ConvVAE((2, 40), 4, 8, likelihood=likelihood)
    x = (torch.rand(3, 2, 40) * 255).round() / 255
    mask = length_mask(torch.tensor([40, 17, 0]), 40)
    out = model(torch.where(mask, x, math.nan), generator=seeded(0), mask=mask)
    assert isinstance(out.distribution, ObservedElements)
    found = out.distribution.log_prob(torch.where(mask, x, math.nan))
    each = out.distribution.whole.base_dist.log_prob(x)
    expected = torch.stack([row[:, :n].sum() for row, n in zip(each, (40, 17, 0), strict=True)])
    torch.testing.assert_close(found, expected)
    assert found[2] == 0
    torch.testing.assert_close(out.distribution.mean, out.distribution.whole.mean)
    found.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (torch.ones(3, 1, 40), TypeError, "boolean.*got torch.float32"),
        ([True], TypeError, "got list"),
        (torch.ones(3, 40, dtype=torch.bool), ValueError, r"\(3, 2, 40\).*got \(3, 40\)"),
        (torch.ones(3, 1, 39, dtype=torch.bool), ValueError, r"got \(3, 1, 39\)"),
    ],
)
def test_wrong_masks_are_named(mask, error, message):
    x, _ = sequences()
    with pytest.raises(error, match=message):
        SEQUENCES(x, mask=mask)


def test_padded_sequences_are_learnt_as_well_as_whole_ones(seeded):
    """Noise behind the end does no harm: the error where something was observed falls alike."""
    torch.manual_seed(0)
    time = torch.linspace(0, 1, 24)
    phase = 6.28 * torch.rand(64, 1)
    whole = torch.sin(12 * time + phase)
    mask = length_mask(torch.randint(12, 25, (64,)), 24)[:, 0]
    errors = {}
    for name, noise in (("clean", 0.0), ("noisy", 50.0)):
        torch.manual_seed(1)
        model = MLPVAE((24,), 2, (32,), input_scale=0.7)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(150):
            x = torch.where(mask, whole, noise * torch.randn(whole.shape, generator=seeded(3)))
            out = model(x, mask=mask)
            error = (out.reconstruction - x).square()[mask].mean()
            (error + 1e-3 * out.kl.mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
        errors[name] = float(error.detach())
    assert errors["noisy"] == pytest.approx(errors["clean"], rel=1e-3)
    assert errors["noisy"] < 0.15
