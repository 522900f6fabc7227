r"""Images in memory as uint8, and how a batch of them becomes what a model sees.

A batch is made in three steps: rows are taken from the uint8 array, multiplied by `scale` (so
that pixels lie in [0, 1]), and passed through a *view*: as they are, rotated, or coloured. What
is random in a view comes from numbers in [0, 1) that the caller hands in, one row per image, so
that a view itself is a plain function and a run can be resumed at any step.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Batch", "ImageData", "PlainView", "Split", "SplitName", "View", "ViewBatch"]

SplitName = Literal["train", "test"]
# seeds of the fixed draws: one per split, so that no evaluation depends on the run's seed
_TABLE_SEEDS: dict[SplitName, int] = {"train": 2018, "test": 1810}


class Batch(NamedTuple):
    """What a training step sees.

    Attributes:
        images: (batch, C, H, W), float32 in [0, 1]; the model reconstructs these.
        context: (batch, *context_shape), or None for unconditional data.
        labels: (batch,) int64, or None where the dataset has none.
    """

    images: Tensor
    context: Tensor | None
    labels: Tensor | None


class ViewBatch(NamedTuple):
    """What a view makes of images: the images to reconstruct and the context."""

    images: Tensor
    context: Tensor | None


class View(Protocol):
    """How stored images become model inputs."""

    @property
    def draws(self) -> int:
        """Random numbers that the view needs per image."""
        ...

    @property
    def fixed(self) -> bool:
        """Whether the draws belong to the image (one fixed row each) instead of to the step."""
        ...

    @property
    def note(self) -> str:
        """What it does, recorded with each run."""
        ...

    def shape(self, stored: tuple[int, int, int]) -> tuple[int, int, int]:
        """Shape (C, H, W) of the images that the model reconstructs."""
        ...

    def context_shape(self, stored: tuple[int, int, int]) -> tuple[int, ...] | None:
        """Shape of one image's context, or None."""
        ...

    def __call__(self, images: Tensor, draws: Tensor | None) -> ViewBatch:
        """Apply the view to float images (batch, C, H, W) with draws (batch, `draws`)."""
        ...


@dataclass(frozen=True)
class PlainView:
    """The images as they are stored, without context."""

    draws: int = 0
    fixed: bool = True
    note: str = "as stored"

    def shape(self, stored: tuple[int, int, int]) -> tuple[int, int, int]:
        """The stored shape."""
        return stored

    def context_shape(self, stored: tuple[int, int, int]) -> tuple[int, ...] | None:
        """None: unconditional."""
        return None

    def __call__(self, images: Tensor, draws: Tensor | None) -> ViewBatch:
        """The images unchanged."""
        return ViewBatch(images, None)


@dataclass(frozen=True)
class Split:
    """One part of a dataset: uint8 images (n, C, H, W) and, where known, int64 labels (n,)."""

    images: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise ValueError(
                f"`images` must be uint8 (n, C, H, W); got {self.images.dtype} "
                f"{tuple(self.images.shape)}"
            )
        if self.labels is not None and self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"`labels` must be ({len(self.images)},) for {len(self.images)} images; got "
                f"{tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageData:
    """A dataset in memory.

    Args:
        name: The dataset's name in configurations.
        train: The images that the constraint speaks of.
        test: The held-out images.
        classes: Number of classes of the labels, or None.
        scale: Factor from stored values to pixels in [0, 1].
        preprocessing: What was done to the files' pixels, in words.
        view: How stored images become model inputs.
    """

    name: str
    train: Split
    test: Split
    classes: int | None = None
    scale: float = 1 / 255
    preprocessing: str = "none"
    view: View = field(default_factory=PlainView)
    _tables: dict[SplitName, Tensor | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tables: dict[SplitName, Tensor | None] = {}
        for name, seed in _TABLE_SEEDS.items():
            generator = torch.Generator().manual_seed(seed)
            split = self.split(name)
            drawn = torch.rand(len(split), self.view.draws, generator=generator)
            tables[name] = drawn.to(split.images.device) if self.view.draws else None
        object.__setattr__(self, "_tables", tables)

    def split(self, name: SplitName) -> Split:
        """The training or the held-out part."""
        return self.train if name == "train" else self.test

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of what the model reconstructs."""
        return self.view.shape(self._stored)

    @property
    def context_shape(self) -> tuple[int, ...] | None:
        """Shape of one image's context, or None for unconditional data."""
        return self.view.context_shape(self._stored)

    @property
    def _stored(self) -> tuple[int, int, int]:
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def draw(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Random numbers (count, draws) for one training batch; None if the view needs none."""
        if self.view.fixed or not self.view.draws:
            return None
        return torch.rand(count, self.view.draws, generator=generator)

    def batch(self, split: SplitName, indices: Tensor, draws: Tensor | None = None) -> Batch:
        """Make the batch of the given rows.

        Args:
            split: Which part to take from.
            indices: (batch,) int64 rows.
            draws: The view's random numbers (batch, draws), as `draw` returns them; None takes
                each image's own fixed ones, so that an evaluation always sees the same views.
        """
        part = self.split(split)
        device = part.images.device
        rows = indices.to(device, non_blocking=True)
        if draws is None:
            table = self._tables[split]
            draws = None if table is None else table[rows]
        else:
            draws = draws.to(device, non_blocking=True)
        # index_select: several times faster than indexing with brackets
        images = part.images.index_select(0, rows).to(torch.float32).mul_(self.scale)
        view = self.view(images, draws)
        labels = None if part.labels is None else part.labels[rows]
        return Batch(view.images, view.context, labels)

    def to(self, device: torch.device) -> "ImageData":
        """A copy whose arrays live on `device`, still as uint8."""

        def move(split: Split) -> Split:
            labels = None if split.labels is None else split.labels.to(device)
            return Split(split.images.to(device), labels)

        return replace(self, train=move(self.train), test=move(self.test))

    def limited(self, train: int | None, test: int | None) -> "ImageData":
        """A copy with only the first so many images of each part."""

        def head(split: Split, limit: int | None) -> Split:
            labels = None if split.labels is None else split.labels[:limit]
            return Split(split.images[:limit], labels)

        return replace(self, train=head(self.train, train), test=head(self.test, test))

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the sha256 of all stored pixels."""
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            digest.update(str(tuple(split.images.shape)).encode())
            digest.update(split.images.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]
