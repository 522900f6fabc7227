"""Rotation (MNIST-rotate) and colour (Color-MNIST) as functions of images and drawn numbers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from geco_experiments.datasets.base import Shape, ViewBatch

__all__ = ["ColourView", "RotateView", "hue", "rotate"]


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Rotate each image about its centre, bilinearly, with zeros from outside.

    Args:
        images: (batch, C, H, W) float.
        angles: (batch,) radians, counter-clockwise as seen on a screen.

    Returns:
        (batch, C, H, W).
    """
    height, width = images.shape[-2:]
    # grid_sample's coordinates run from -1 to 1 along each side, from pixel edge to pixel edge,
    # so a rotation of pixels in an image that is no square carries the ratio of the sides
    ratio = height / width
    x = _centres(width, images)
    y = _centres(height, images)
    cosine, sine = angles.cos()[:, None], angles.sin()[:, None]
    grid = images.new_empty(len(images), height, width, 2)
    # a rotation is a sum of a function of the column and one of the row: filling the grid this
    # way is several times faster than a product of matrices (affine_grid)
    torch.sub((cosine * x)[:, None, :], (sine * ratio * y)[:, :, None], out=grid[..., 0])
    torch.add((sine / ratio * x)[:, None, :], (cosine * y)[:, :, None], out=grid[..., 1])
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _centres(count: int, like: Tensor) -> Tensor:
    """The coordinates of pixel centres between -1 and 1."""
    places = torch.arange(count, dtype=like.dtype, device=like.device)
    return (2 * places + 1) / count - 1


@dataclass(frozen=True)
class RotateView:
    r"""Predict a digit at a queried angle from a view of it at another angle.

    Both angles are uniform on the circle. The image to reconstruct is the digit at the queried
    angle; the context has five planes: the view, then the sine and cosine of its angle and of the
    queried one, each constant over a plane. In training both angles are drawn anew at every step;
    in evaluation each image has its own fixed pair.
    """

    draws: int = 2
    fixed: bool = False
    note: str = (
        "rotated bilinearly about the centre to an angle uniform on the circle; context: view at "
        "another angle, sine and cosine of both angles as planes"
    )

    def shape(self, stored: Shape) -> Shape:
        """The stored shape."""
        return stored

    def context_shape(self, stored: Shape) -> Shape:
        """The view's channels and four planes of angles."""
        channels, height, width = stored
        return channels + 4, height, width

    def __call__(self, images: Tensor, draws: Tensor | None) -> ViewBatch:
        """Rotate; draws (batch, 2) are the view's and the queried angle as shares of a turn."""
        if draws is None:
            raise ValueError("`draws` must be (batch, 2) for rotated images; got None")
        angles = 2 * math.pi * draws
        count, _, height, width = images.shape
        both = rotate(torch.cat([images, images]), angles.T.reshape(-1))
        view, target = both[:count], both[count:]
        waves = torch.stack(
            [angles[:, 0].sin(), angles[:, 0].cos(), angles[:, 1].sin(), angles[:, 1].cos()], dim=1
        )
        planes = waves[:, :, None, None].expand(-1, -1, height, width)
        return ViewBatch(target, torch.cat([view, planes], dim=1))


def hue(turns: Tensor) -> Tensor:
    """Fully saturated colours (..., 3) in [0, 1] at the given hues (...) in turns."""
    offsets = torch.tensor([0.0, 1 / 3, 2 / 3], dtype=turns.dtype, device=turns.device)
    distance = (turns[..., None] - offsets + 0.5).remainder(1) - 0.5
    return (2 - 6 * distance.abs()).clamp(0, 1)


@dataclass(frozen=True)
class ColourView:
    """Give each grey image one saturated colour, of a hue that belongs to the image.

    Args:
        conditional: Whether the colour is the context, a vector (3,), or left to the latents.
    """

    conditional: bool = True
    draws: int = 1
    fixed: bool = True

    @property
    def note(self) -> str:
        """What it does."""
        role = "given as context" if self.conditional else "not given"
        return f"multiplied by a saturated colour of uniform hue, fixed per image; colour {role}"

    def shape(self, stored: Shape) -> Shape:
        """Three channels."""
        return 3, *stored[1:]

    def context_shape(self, stored: Shape) -> Shape | None:
        """The colour (3,), or None."""
        return (3,) if self.conditional else None

    def __call__(self, images: Tensor, draws: Tensor | None) -> ViewBatch:
        """Colour images (batch, 1, H, W); draws (batch, 1) are hues in turns."""
        if draws is None:
            raise ValueError("`draws` must be (batch, 1) for coloured images; got None")
        colour = hue(draws[:, 0])
        return ViewBatch(images * colour[:, :, None, None], colour if self.conditional else None)
