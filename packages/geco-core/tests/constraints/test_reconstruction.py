import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_core.constraints import ReconstructionError

NAN = float("nan")


def test_is_the_mean_squared_error_minus_kappa_squared():
    x = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]]], dtype=torch.float64)
    g = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 3.0]]], dtype=torch.float64)
    violation = ReconstructionError(0.5)(x, g)
    assert violation.tolist() == [14 / 4 - 0.25, 4 / 4 - 0.25]


@settings(deadline=None, max_examples=50)
@given(
    error=st.floats(1e-3, 1e3),
    kappa=st.floats(1e-3, 1e3),
    shape=st.lists(st.integers(1, 6), min_size=0, max_size=4),
    batch=st.integers(1, 5),
)
def test_the_same_error_per_element_is_the_same_violation_at_every_size(
    error, kappa, shape, batch
):
    x = torch.zeros(batch, *shape, dtype=torch.float64)
    signs = torch.where(torch.arange(x.numel()).reshape(x.shape) % 2 == 0, 1.0, -1.0).double()
    violation = ReconstructionError(kappa)(x, x + error * signs)
    expected = torch.full((batch,), error**2 - kappa**2, dtype=torch.float64)
    torch.testing.assert_close(violation, expected, rtol=1e-12, atol=1e-12 * kappa**2)


@settings(deadline=None, max_examples=30)
@given(unit=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_the_relative_violation_has_no_unit(unit, seed):
    x, g = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(seed)).double()
    one, other = ReconstructionError(0.3), ReconstructionError(0.3 * unit)
    torch.testing.assert_close(one(x, g) / one.scale, other(unit * x, unit * g) / other.scale)


def test_bounds():
    x = torch.randn(5, 3, 4)
    constraint = ReconstructionError(0.2)
    torch.testing.assert_close(constraint(x, x), torch.full((5,), -constraint.scale))
    assert (constraint(x, torch.randn(5, 3, 4)) >= -constraint.scale).all()


def test_masked_elements_do_not_exist():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    g = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 3, 4) > 0.4
    broken = torch.where(mask, x, NAN)
    violation = ReconstructionError(0.1)(broken, g, mask=mask)
    expected = [(x[i] - g[i])[mask[i]].square().mean() - 0.01 for i in range(2)]
    torch.testing.assert_close(violation, torch.stack(expected))
    violation.sum().backward()
    assert g.grad.isfinite().all()
    assert (g.grad[~mask] == 0).all()
    assert (g.grad[mask] != 0).all()


def test_weights_are_proportions_and_multiply_the_mask():
    x = torch.zeros(1, 4)
    g = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    weights = torch.tensor([[1.0, 3.0, 0.0, 5.0]])
    mask = torch.tensor([[True, True, True, False]])
    constraint = ReconstructionError(0.5)
    expected = (1 * 1 + 3 * 4) / 4 - 0.25
    for factor in (1.0, 1e-6, 255.0):
        violation = constraint(x, g, weights=factor * weights, mask=mask)
        assert violation.item() == pytest.approx(expected, rel=1e-6)
    broken = torch.tensor([[0.0, 0.0, NAN, NAN]])
    assert constraint(broken, g, weights=weights, mask=mask).isfinite().all()


def test_masks_broadcast_over_channels_and_batch():
    torch.manual_seed(0)
    x, g = torch.randn(2, 5, 3, 4, 6)
    mask = torch.rand(5, 1, 4, 6) > 0.5
    constraint = ReconstructionError(1.0)
    full = constraint(x, g, mask=mask.expand_as(x))
    torch.testing.assert_close(constraint(x, g, mask=mask), full)
    one = constraint(x, g, mask=mask[:1])
    torch.testing.assert_close(one, constraint(x, g, mask=mask[:1].expand_as(x)))


def test_an_example_without_observations_has_no_error():
    x = torch.full((2, 3), NAN)
    g = torch.randn(2, 3, requires_grad=True)
    mask = torch.tensor([[False], [False]])
    violation = ReconstructionError(0.1)(x, g, mask=mask)
    torch.testing.assert_close(violation, torch.tensor([-0.01, -0.01]))
    violation.sum().backward()
    assert (g.grad == 0).all()


def test_masks_and_weights_that_do_not_fit_are_named():
    x = torch.zeros(4, 3, 4, 4)
    constraint = ReconstructionError(0.1)
    with pytest.raises(ValueError, match=r"`mask` must have the shape of `x`, \(4, 3, 4, 4\)"):
        constraint(x, x, mask=torch.ones(4, dtype=torch.bool))  # would broadcast over the width
    with pytest.raises(ValueError, match=r"`weights`.*got \(4, 2, 4, 4\)"):
        constraint(x, x, weights=torch.ones(4, 2, 4, 4))
    with pytest.raises(TypeError, match="`mask` must be boolean"):
        constraint(x, x, mask=torch.ones(4, 1, 1, 1))
    with pytest.raises(TypeError, match="`weights` must have a floating-point dtype"):
        constraint(x, x, weights=torch.ones(4, 1, 1, 1, dtype=torch.bool))


def test_float16_overflows_nowhere():
    x = torch.zeros(2, 10_000, dtype=torch.float16)
    g = torch.full_like(x, 300.0)  # its square is no float16
    torch.testing.assert_close(ReconstructionError(1.0)(x, g), torch.full((2,), 89_999.0))


def test_equivalent_beta_is_that_of_a_gaussian_decoder_of_unit_variance():
    # KL + lambda mean_j e_j^2 is, divided by 2 lambda / d, sum_j e_j^2 / 2 + beta KL
    x = torch.zeros(7, 3, 8, 8)
    multiplier = torch.tensor(50.0)
    beta = ReconstructionError(0.1).equivalent_beta(multiplier, x)
    assert beta.item() == pytest.approx(math.prod((3, 8, 8)) / 100)
