import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from geco_core.constraints import FeatureReconstructionError, LocalMoments, ReconstructionError

NAN = float("nan")


def images(seed: int = 0, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*(shape or (3, 2, 6, 7)), generator=generator, dtype=torch.float64)


def test_with_the_identity_it_is_the_reconstruction_error():
    x, g = images(0), images(1)
    expected = ReconstructionError(0.3)(x, g)
    torch.testing.assert_close(FeatureReconstructionError(0.3, nn.Identity())(x, g), expected)
    torch.testing.assert_close(FeatureReconstructionError(0.3, lambda a: a)(x, g), expected)


def test_several_feature_tensors_count_alike_whatever_their_sizes():
    x, g = images(0), images(1)
    small, large = (lambda a: a[:, 0, 0, 0]), (lambda a: 2 * a)
    alone = [FeatureReconstructionError(0.3, f)(x, g) for f in (small, large)]
    for pack in (
        lambda a: (small(a), large(a)),
        lambda a: [small(a), large(a)],
        lambda a: {"small": small(a), "large": large(a)},
    ):
        together = FeatureReconstructionError(0.3, pack)(x, g)
        torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)


def test_features_of_different_shapes_are_named():
    x, g = images(0), images(1).requires_grad_()
    features = lambda a: a[:, :1] if a.requires_grad else a  # noqa: E731
    with pytest.raises(ValueError, match=r"same shapes for data and reconstruction"):
        FeatureReconstructionError(0.3, features)(x, g)


def test_the_data_get_no_gradient():
    x, g = images(0).requires_grad_(), images(1).requires_grad_()
    FeatureReconstructionError(0.3, nn.Identity())(x, g).sum().backward()
    assert x.grad is None
    assert g.grad is not None


def test_what_was_not_observed_makes_no_error():
    x, g = images(0), images(1).requires_grad_()
    mask = torch.ones(3, 1, 6, 7, dtype=torch.bool)
    mask[:, :, 2, 3] = False
    constraint = FeatureReconstructionError(0.3, LocalMoments(3))
    broken = torch.where(mask, x, NAN)
    violation = constraint(broken, g, mask=mask)
    filled = torch.where(mask, x, g.detach())
    torch.testing.assert_close(violation, constraint(filled, g))
    torch.testing.assert_close(
        constraint(g.detach() * mask, g, mask=mask), torch.full((3,), -0.09).double()
    )
    (gradient,) = torch.autograd.grad(violation.sum(), g)
    assert gradient.isfinite().all()
    with pytest.raises(TypeError, match="`mask` must be boolean"):
        constraint(x, g, mask=mask.float())


@pytest.mark.parametrize(("size", "stride"), [(3, 1), ((2, 4), (1, 3)), (6, 1), (1, 2)])
def test_moments_are_those_of_the_unfolded_patches(size, stride):
    x = images(0) * 5 - 1
    mean, deviation = LocalMoments(size, stride, eps=1e-9)(x)
    patches = nn.functional.unfold(x, size, stride=stride)
    patches = patches.unflatten(1, (2, -1)).unflatten(-1, mean.shape[2:])
    torch.testing.assert_close(mean, patches.mean(2))
    if size != 1:
        torch.testing.assert_close(deviation, patches.std(2, correction=0))
    else:
        assert (deviation < 1e-6).all()


def test_moments_have_any_number_of_spatial_axes():
    for shape in ((2, 3, 9), (2, 1, 4, 5, 6)):
        x = images(0, *shape)
        mean, deviation = LocalMoments(3)(x)
        assert mean.shape == deviation.shape == (*shape[:2], *(n - 2 for n in shape[2:]))
        first = x[(slice(None), slice(None), *[slice(3)] * (x.ndim - 2))].flatten(2)
        corner = (slice(None), slice(None), *[0] * (x.ndim - 2))
        torch.testing.assert_close(mean[corner], first.mean(2))


@settings(deadline=None, max_examples=25)
@given(offset=st.floats(-1e3, 1e3), seed=st.integers(0, 100))
def test_deviations_do_not_drown_in_a_large_offset(offset, seed):
    x = images(seed).float() + torch.tensor(offset, dtype=torch.float32)
    exact = LocalMoments(3)(x.double())
    mean, deviation = LocalMoments(3)(x)
    torch.testing.assert_close(mean.double(), exact[0], rtol=3e-7, atol=1e-6)
    torch.testing.assert_close(deviation.double(), exact[1], rtol=1e-3, atol=1e-5)


def test_flat_images_have_a_finite_gradient():
    x = torch.full((1, 1, 6, 6), 0.7, requires_grad=True)
    _, deviation = LocalMoments(3)(x)
    deviation.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() < 1e-3
    assert (deviation < 3e-3).all()


def test_texture_is_free_brightness_and_contrast_are_not():
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    x = checks.double().expand(1, 1, 8, 8)
    constraint = FeatureReconstructionError(0.1, LocalMoments(2))
    torch.testing.assert_close(constraint(x, 1 - x), torch.tensor([-0.01]).double())
    assert constraint(x, x / 2) > 0
    assert constraint(x, torch.full_like(x, 0.5)) > 0


def test_bad_patches_are_named():
    for wrong in (0, -1, (), (3, 0)):
        with pytest.raises(ValueError, match="`size` must be a positive integer"):
            LocalMoments(wrong)
    for wrong in (2.0, True, (1.5, 2)):
        with pytest.raises(TypeError, match="`stride` must be a positive integer"):
            LocalMoments(3, wrong)
    with pytest.raises(ValueError, match=r"a patch of \(8, 8\) does not fit into `x` of shape"):
        LocalMoments()(images(0))
    with pytest.raises(ValueError, match="2 axes of space, but `x` has shape"):
        LocalMoments((2, 2))(images(0, 2, 3, 9))
    with pytest.raises(ValueError, match="at least one axis of space"):
        LocalMoments(2)(images(0, 4, 5))
    for wrong in (0.0, -1.0, NAN):
        with pytest.raises(ValueError, match="`eps` must be positive and finite"):
            LocalMoments(3, eps=wrong)
    with pytest.raises(TypeError, match="`eps` must be a positive number"):
        LocalMoments(3, eps="small")
