import math

import pytest
import torch

from geco_experiments.datasets.base import ImageData, Split
from geco_experiments.datasets.views import ColourView, RotateView, hue, rotate


def images(count=6, height=9, width=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, height, width, generator=generator)


@pytest.mark.parametrize("quarter", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turns_are_exact(quarter, side):
    x = images(height=side, width=side)
    turned = rotate(x, torch.full((6,), quarter * math.pi / 2))
    torch.testing.assert_close(turned, torch.rot90(x, quarter, (2, 3)), atol=2e-5, rtol=0)


def test_half_turn_of_an_oblong():
    x = images(height=6, width=10)
    turned = rotate(x, torch.full((6,), math.pi))
    torch.testing.assert_close(turned, x.flip(2, 3), atol=2e-5, rtol=0)


def test_oblong_is_turned_without_shearing():
    # a centred dot stays, and distances from the centre are kept whatever the shape
    x = torch.zeros(1, 1, 21, 41)
    x[0, 0, 10, 26] = 1.0
    turned = rotate(x, torch.tensor([math.pi / 2]))
    row, column = divmod(int(turned.argmax()), 41)
    assert (row, column) == (4, 20)


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.5, -1.2])
def test_any_angle_against_the_rotated_function(angle):
    def wave(x, y):
        return 0.5 + 0.3 * torch.sin(0.25 * x + 0.1 * y) + 0.2 * torch.cos(0.2 * y)

    y, x = torch.meshgrid(torch.arange(24.0) - 11.5, torch.arange(24.0) - 11.5, indexing="ij")
    # rows count downwards, so that counter-clockwise on the screen is this rotation of (x, y)
    back_x = x * math.cos(angle) - y * math.sin(angle)
    back_y = x * math.sin(angle) + y * math.cos(angle)
    turned = rotate(wave(x, y)[None, None], torch.tensor([angle]))[0, 0]
    inside = x.hypot(y) < 10
    difference = (turned - wave(back_x, back_y)).abs()[inside]
    assert difference.max() < 0.01


def test_rotate_view_shows_both_angles_and_targets_the_second():
    view = RotateView()
    x = images()
    draws = torch.tensor([[0.25, 0.5]] * 6)
    out = view(x, draws)
    torch.testing.assert_close(out.images, torch.rot90(x, 2, (2, 3)), atol=2e-5, rtol=0)
    torch.testing.assert_close(out.context[:, :1], torch.rot90(x, 1, (2, 3)), atol=2e-5, rtol=0)
    planes = out.context[:, 1:].mean((2, 3))
    expected = torch.tensor([[1.0, 0.0, 0.0, -1.0]]).expand(6, -1)
    torch.testing.assert_close(planes, expected, atol=1e-6, rtol=0)
    assert out.context.shape[1:] == view.context_shape((1, 9, 9))
    with pytest.raises(ValueError, match=r"`draws` must be"):
        view(x, None)


def test_hues():
    turns = torch.tensor([0.0, 1 / 3, 2 / 3, 1 / 6, 0.5])
    expected = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]]).float()
    torch.testing.assert_close(hue(turns), expected, atol=1e-5, rtol=0)
    many = hue(torch.rand(1000))
    assert many.min() >= 0
    torch.testing.assert_close(many.amax(1), torch.ones(1000))


@pytest.mark.parametrize("conditional", [True, False])
def test_colour(conditional):
    view = ColourView(conditional)
    x = images()
    out = view(x, torch.rand(6, 1))
    assert out.images.shape == (6, *view.shape((1, 9, 9)))
    torch.testing.assert_close(out.images.amax(1), x[:, 0])
    assert (out.context is None) is (not conditional)
    assert (view.context_shape((1, 9, 9)) is None) is (not conditional)
    assert ("given as context" in view.note) is conditional


def data(view):
    generator = torch.Generator().manual_seed(0)
    stored = torch.randint(256, (10, 1, 9, 9), generator=generator, dtype=torch.uint8)
    return ImageData("toy", Split(stored), Split(stored[:4]), view=view)


def test_rotation_is_drawn_in_training_and_fixed_in_evaluation():
    toy = data(RotateView())
    rows = torch.arange(4)
    one = toy.batch("test", rows)
    assert torch.equal(one.images, toy.batch("test", rows).images)
    parts = torch.cat([toy.batch("test", rows[:1]).images, toy.batch("test", rows[1:]).images])
    torch.testing.assert_close(parts, one.images)
    generator = torch.Generator().manual_seed(1)
    first, second = toy.draw(4, generator), toy.draw(4, generator)
    drawn = [toy.batch("train", rows, draws).images for draws in (first, second)]
    assert not torch.equal(*drawn)
    again = toy.draw(4, torch.Generator().manual_seed(1))
    assert torch.equal(toy.batch("train", rows, again).images, drawn[0])


def test_colour_belongs_to_the_image():
    toy = data(ColourView())
    assert toy.draw(4, torch.Generator()) is None
    whole = toy.batch("train", torch.arange(10))
    assert torch.equal(toy.batch("train", torch.tensor([7])).context[0], whole.context[7])
    colours = {tuple(colour.tolist()) for colour in whole.context}
    assert len(colours) == 10
