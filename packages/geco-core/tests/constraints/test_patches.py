import pytest
import torch
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d

from geco_core.constraints.patches import box_mean

POOL = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}


@pytest.mark.parametrize(
    ("space", "size", "stride"),
    [
        ((9,), (4,), (1,)),
        ((9, 10), (8, 7), (1, 1)),
        ((9, 10), (1, 6), (2, 3)),
        ((11, 11), (11, 11), (1, 1)),
        ((6, 7), (1, 1), (1, 1)),
        ((8, 9), (3, 5), (5, 2)),
        ((4, 5, 6), (2, 3, 5), (1, 2, 1)),
    ],
)
def test_is_average_pooling(space, size, stride):
    values = torch.randn(2, 3, *space, dtype=torch.float64, requires_grad=True)
    result = box_mean(values, size, stride)
    expected = POOL[len(space)](values, size, stride)
    torch.testing.assert_close(result, expected)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((w * weights).sum(), values)[0] for w in (result, expected)]
    torch.testing.assert_close(*gradients)


def test_every_window_length():
    values = torch.randn(1, 1, 40, dtype=torch.float64)
    for length in range(1, 41):
        torch.testing.assert_close(
            box_mean(values, (length,), (1,)), avg_pool1d(values, length, 1)
        )


def test_second_derivatives_and_batched_gradients():
    values = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)

    def energy(values):
        return box_mean(values, (2, 3), (2, 1)).pow(3)

    assert torch.autograd.gradcheck(energy, (values,), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(energy, (values,))
    each = torch.func.vmap(lambda v: box_mean(v, (2, 3), (2, 1)))(values)
    torch.testing.assert_close(each, box_mean(values, (2, 3), (2, 1)))


def test_nothing_is_kept_for_the_gradient_and_the_input_stays():
    values = torch.randn(2, 8, 8, requires_grad=True)
    before = values.detach().clone()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        result = box_mean(values, (4, 1), (1, 1))
    assert kept == []
    result.detach().zero_()
    box_mean(values, (1, 1), (1, 1)).detach().zero_()
    assert torch.equal(values, before)
