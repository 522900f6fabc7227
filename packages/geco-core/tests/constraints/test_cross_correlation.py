import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import unfold

from geco_core.constraints import PatchCrossCorrelation

EPS = 1e-3


def noise(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*(shape or (2, 3, 9, 10)), generator=generator, dtype=torch.float64)


def unfolded(x, g, size, stride, *, per_channel=False, eps=EPS):
    """The correlations by the definition: every patch is copied out and normalised."""
    vectors = []
    for images in (x, g):
        patches = unfold(images, size, stride=stride).unflatten(1, (x.shape[1], -1))
        if not per_channel:
            patches = patches.flatten(1, 2).unsqueeze(1)
        patches = patches - patches.mean(2, keepdim=True)
        flat = torch.full_like(patches[:, :, :1], eps * math.sqrt(patches.shape[2]))
        patches = torch.cat([patches, flat], 2)
        vectors.append(patches / patches.norm(dim=2, keepdim=True))
    return (vectors[0] * vectors[1]).sum(2)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("channels", "size", "stride"),
    [(1, 3, 1), (3, 3, 1), (3, 4, 2), (2, (2, 5), (1, 3)), (4, (9, 10), 1), (2, (1, 3), 1)],
)
def test_is_the_mean_over_the_unfolded_patches(channels, size, stride, per_channel):
    x, g = noise(0, 2, channels, 9, 10), noise(1, 2, channels, 9, 10).requires_grad_()
    constraint = PatchCrossCorrelation(0.7, size, stride, per_channel=per_channel)
    violation = constraint(x, g)
    expected = 0.7 - unfolded(x, g, size, stride, per_channel=per_channel).mean((1, 2))
    torch.testing.assert_close(violation, expected, rtol=1e-11, atol=1e-11)
    gradients = [torch.autograd.grad(v.sum(), g)[0] for v in (violation, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)


def test_any_number_of_spatial_axes():
    for shape in ((2, 3, 12), (2, 2, 5, 6, 7)):
        x, g = noise(0, *shape), noise(1, *shape).requires_grad_()
        constraint = PatchCrossCorrelation(0.7, 3)
        violation = constraint(x, g)
        flat = [images[..., None].flatten(2) if len(shape) == 3 else None for images in (x, g)]
        if len(shape) == 3:
            columns = [images[:, :, None, :] for images in flat]
            expected = 0.7 - unfolded(*columns, (1, 3), 1).mean((1, 2))
            torch.testing.assert_close(violation, expected)
        assert torch.autograd.gradcheck(lambda g, c=constraint, x=x: c(x, g), (g,), fast_mode=True)


@settings(deadline=None, max_examples=40)
@given(
    gain=st.floats(0.2, 50),
    shift=st.floats(-100, 100),
    which=st.sampled_from(["x", "reconstruction"]),
    seed=st.integers(0, 1000),
)
def test_brightness_and_contrast_are_free(gain, shift, which, seed):
    x, g = noise(seed), noise(seed + 1)
    constraint = PatchCrossCorrelation(0.7, 3)
    changed = (gain * x + shift, g) if which == "x" else (x, gain * g + shift)
    # up to eps: its share of the variance of a patch
    torch.testing.assert_close(constraint(*changed), constraint(x, g), rtol=0, atol=2e-3)


@settings(deadline=None, max_examples=40)
@given(kappa=st.floats(0.01, 0.99), seed=st.integers(0, 1000), flat=st.floats(0, 1))
def test_bounds(kappa, seed, flat):
    x, g = noise(seed).float(), noise(seed + 1).float()
    x[..., : int(10 * flat)] = 0.3
    g[:, :, : int(9 * flat)] = 0.8
    constraint = PatchCrossCorrelation(kappa, 3)
    relative = constraint(x, g) / constraint.scale
    assert (relative >= -1 - 1e-6).all()
    assert (constraint(x, g) <= 1 + kappa + 1e-6).all()
    torch.testing.assert_close(constraint(x, x), torch.full((2,), kappa - 1), atol=1e-5, rtol=0)


def test_flat_patches_agree_with_flat_ones_and_with_nothing_else():
    black, textured = torch.zeros(1, 1, 6, 6), noise(0, 1, 1, 6, 6).float()
    constraint = PatchCrossCorrelation(0.75, 3)
    torch.testing.assert_close(constraint(black, black + 0.5), torch.tensor([-0.25]))
    assert constraint(textured, black).item() == pytest.approx(0.75, abs=0.02)
    assert constraint(black, textured).item() == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_gradients_of_flat_patches_are_finite_and_bounded(dtype, level):
    x = noise(0, 1, 2, 8, 8).to(dtype)
    for target in (x, torch.full_like(x, level)):
        g = torch.full_like(x, level).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            violation = PatchCrossCorrelation(0.7, 4)(target, g)
        violation.sum().backward()
        assert violation.isfinite().all()
        assert g.grad.isfinite().all()
        # 1 / (eps sqrt(n)) for a single patch of n = 32 elements, the most that eps allows
        assert g.grad.float().norm() <= 1 / (EPS * math.sqrt(32))


@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
def test_float32_keeps_its_digits_far_from_zero(offset):
    x = (noise(0, 4, 3, 16, 16) + offset).float()
    g = (noise(1, 4, 3, 16, 16) - 3 * offset).float()
    constraint = PatchCrossCorrelation(0.7, 5)
    torch.testing.assert_close(
        constraint(x, g).double(), constraint(x.double(), g.double()), atol=2e-5, rtol=0
    )


def test_a_flat_area_far_from_the_images_mean_is_not_taken_for_texture():
    # its variance, computed as E[x^2] - E[x]^2 in float32, is nothing but rounding
    x = torch.zeros(1, 1, 32, 32)
    x[..., 16:] = 255 / 3
    x[..., 16:, 16:] = 255.0
    constraint = PatchCrossCorrelation(0.75, 8)
    g = x * 1.1 + 3
    assert constraint(x, g).item() == pytest.approx(-0.25, abs=2e-3)
    quantum = torch.zeros_like(x)
    quantum[..., 8::8, 8::8] = 1.0  # one grey level in one pixel of every patch is still texture
    same = constraint(x + quantum, x + quantum)
    other = constraint(x + quantum, x - quantum)
    assert other.item() > same.item() + 0.1


def test_memory_is_that_of_a_few_images_not_of_a_copy_per_element():
    x = torch.rand(4, 3, 32, 32)
    g = torch.rand(4, 3, 32, 32, requires_grad=True)

    def kept(compute) -> float:
        sizes = {}

        def note(tensor):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            result = compute()  # held, so that no address is used twice
        assert result.requires_grad
        return sum(sizes.values()) / x.nbytes

    size = 8
    assert kept(lambda: PatchCrossCorrelation(0.7, size)(x, g)) < 6  # measured: 4.8
    assert kept(lambda: unfolded(x, g, size, 1).mean((1, 2))) > size * size / 2


def masked_definition(x, g, mask, size):
    """Correlations over the observed elements of each patch, weighted by their share."""
    total, weight = 0.0, 0.0
    for row in range(x.shape[1] - size + 1):
        for column in range(x.shape[2] - size + 1):
            window = (slice(None), slice(row, row + size), slice(column, column + size))
            seen = mask[window]
            if not seen.any():
                continue
            a, b = x[window][seen], g[window][seen]
            a, b = a - a.mean(), b - b.mean()
            top = (a * b).mean() + EPS**2
            bottom = ((a.square().mean() + EPS**2) * (b.square().mean() + EPS**2)).sqrt()
            share = seen.double().mean()
            total, weight = total + share * top / bottom, weight + share
    return total / weight


@pytest.mark.parametrize("channels", [1, 3])
def test_masked_patches_are_compared_over_what_was_observed(channels):
    x, g = noise(0, 2, 3, 7, 8), noise(1, 2, 3, 7, 8).requires_grad_()
    mask = noise(2, 2, channels, 7, 8) > 0.4
    mask[:, :, :4, :4] = False  # some patches are lost
    broken = torch.where(mask, x, float("nan"))
    violation = PatchCrossCorrelation(0.7, 3)(broken, g, mask=mask)
    expected = [0.7 - masked_definition(x[i], g[i], mask.expand_as(x)[i], 3) for i in range(2)]
    torch.testing.assert_close(violation, torch.stack(expected))
    violation.sum().backward()
    assert g.grad.isfinite().all()
    assert (g.grad[~mask.expand_as(g)] == 0).all()


def test_masks_agree_with_no_mask_and_with_channels_alone():
    x, g = noise(0), noise(1)
    everything = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    mask = noise(2) > 0.3
    for per_channel in (False, True):
        constraint = PatchCrossCorrelation(0.7, 3, per_channel=per_channel)
        torch.testing.assert_close(constraint(x, g, mask=everything), constraint(x, g))
    together = constraint(x, g, mask=mask)
    single = [
        masked_definition(x[0, c : c + 1], g[0, c : c + 1], mask[0, c : c + 1], 3)
        for c in range(3)
    ]
    shares = [unfold(mask[:1, c : c + 1].double(), 3).mean() for c in range(3)]
    expected = sum(s * w for s, w in zip(single, shares, strict=True)) / sum(shares)
    torch.testing.assert_close(together[0], 0.7 - expected)


def test_an_example_without_observations_misses_nothing():
    x, g = torch.full((2, 1, 5, 5), float("nan")), torch.rand(2, 1, 5, 5, requires_grad=True)
    mask = torch.zeros(2, 1, 1, 1, dtype=torch.bool)
    violation = PatchCrossCorrelation(0.75, 3)(x, g, mask=mask)
    assert violation.tolist() == [-0.25, -0.25]
    violation.sum().backward()
    assert (g.grad == 0).all()


def test_bad_arguments_are_named():
    for wrong in (1, (1, 1)):
        with pytest.raises(ValueError, match="`patch_size` must hold at least 2 elements"):
            PatchCrossCorrelation(0.7, wrong)
    with pytest.raises(ValueError, match="`patch_size` must be a positive integer"):
        PatchCrossCorrelation(0.7, 0)
    with pytest.raises(TypeError, match="`stride` must be a positive integer"):
        PatchCrossCorrelation(0.7, 3, 1.5)
    with pytest.raises(ValueError, match="`eps` must be positive"):
        PatchCrossCorrelation(0.7, eps=0)
    with pytest.raises(ValueError, match=r"a patch of \(8, 8\) does not fit"):
        PatchCrossCorrelation(0.7)(torch.rand(2, 1, 7, 9), torch.rand(2, 1, 7, 9))
    with pytest.raises(ValueError, match="at least one axis of space"):
        PatchCrossCorrelation(0.7)(torch.rand(2, 64), torch.rand(2, 64))
