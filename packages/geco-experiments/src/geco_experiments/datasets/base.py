r"""Data in memory, and how a batch of them becomes what a model sees.

A batch is made in three steps: rows are taken from the stored array, moved by `offset` and
multiplied by `scale` (bytes of images then lie in [0, 1]), and passed through a *view*: as they
are, rotated, or coloured. What is random in a view comes from numbers in [0, 1) that the caller
hands in, one row per image, so that a view itself is a plain function and a run can be resumed at
any step.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = [
    "Batch",
    "Dataset",
    "ImageData",
    "PlainView",
    "Split",
    "SplitName",
    "View",
    "ViewBatch",
]

Shape = tuple[int, ...]
SplitName = Literal["train", "test"]
# seeds of the fixed draws: one per split, so that no evaluation depends on the run's seed
_TABLE_SEEDS: dict[SplitName, int] = {"train": 2018, "test": 1810}


class Batch(NamedTuple):
    """What a training step sees.

    Attributes:
        images: (batch, *shape), float32, images (C, H, W) in [0, 1]; what the model reconstructs.
        context: (batch, *context_shape), or None for unconditional data.
        labels: (batch,) int64, or None where the dataset has none.
        mask: (batch, *shape), true where a value was observed, or None where all were.
    """

    images: Tensor
    context: Tensor | None
    labels: Tensor | None
    mask: Tensor | None = None


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

    def shape(self, stored: Shape) -> Shape:
        """Shape of what the model reconstructs, (C, H, W) for images."""
        ...

    def context_shape(self, stored: Shape) -> Shape | None:
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

    def shape(self, stored: Shape) -> Shape:
        """The stored shape."""
        return stored

    def context_shape(self, stored: Shape) -> Shape | None:
        """None: unconditional."""
        return None

    def __call__(self, images: Tensor, draws: Tensor | None) -> ViewBatch:
        """The images unchanged."""
        return ViewBatch(images, None)


@dataclass(frozen=True)
class Split:
    """One part of a dataset.

    Args:
        images: (n, *shape): bytes (uint8) of images (n, C, H, W), or numbers (float32) of any
            shape, such as vectors (n, d) or sequences (n, C, L).
        labels: (n,) int64, or None.
        context: (n, *context_shape) float32, what the model is given beside the data, or None.
        mask: (n, *shape) bool, true where a value was observed, or None: all were.

    Raises:
        ValueError: if an array has another type or length, or a number is not finite.
    """

    images: Tensor
    labels: Tensor | None = None
    context: Tensor | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        images, count = self.images, len(self.images)
        pictures = images.dtype == torch.uint8 and images.ndim == 4
        if not pictures and not (images.dtype == torch.float32 and images.ndim >= 2):
            raise ValueError(
                f"`images` must be uint8 (n, C, H, W) or float32 (n, ...); got {images.dtype} "
                f"{tuple(images.shape)}"
            )
        if images[:1].numel() == 0:
            raise ValueError(f"`images` must hold something; got shape {tuple(images.shape)}")
        if not pictures and not images.isfinite().all():
            raise ValueError("`images` must be finite: mask what was not observed")
        if self.labels is not None and self.labels.shape != images.shape[:1]:
            raise ValueError(
                f"`labels` must be ({count},) for {count} images; got {tuple(self.labels.shape)}"
            )
        if self.context is not None and len(self.context) != count:
            raise ValueError(
                f"`context` must have {count} rows for {count} images; got "
                f"{tuple(self.context.shape)}"
            )
        if self.mask is not None and self.mask.shape != images.shape:
            raise ValueError(
                f"`mask` must have the images' shape {tuple(images.shape)}; got "
                f"{tuple(self.mask.shape)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Split":
        """A copy with every array changed by the same function of a tensor."""
        rest = (self.labels, self.context, self.mask)
        return Split(
            change(self.images), *(None if array is None else change(array) for array in rest)
        )


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    Args:
        name: The dataset's name in configurations.
        train: The images that the constraint speaks of.
        test: The held-out images.
        classes: Number of classes of the labels, or None.
        scale: Factor from stored values, less `offset`, to what the model sees.
        offset: Taken off the stored values first.
        preprocessing: What was done to the files' values, in words.
        view: How stored images become model inputs.

    Raises:
        ValueError: if the two parts do not fit together, or a label is none of the classes.
    """

    name: str
    train: Split
    test: Split
    classes: int | None = None
    scale: float = 1 / 255
    offset: float = 0.0
    preprocessing: str = "none"
    view: View = field(default_factory=PlainView)
    _tables: dict[SplitName, Tensor | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        tables: dict[SplitName, Tensor | None] = {}
        for name, seed in _TABLE_SEEDS.items():
            generator = torch.Generator().manual_seed(seed)
            split = self.split(name)
            drawn = torch.rand(len(split), self.view.draws, generator=generator)
            tables[name] = drawn.to(split.images.device) if self.view.draws else None
        object.__setattr__(self, "_tables", tables)

    def _check(self) -> None:
        for name in ("images", "labels", "context", "mask"):
            one, other = (getattr(split, name) for split in (self.train, self.test))
            if (one is None) != (other is None) and name != "labels":
                raise ValueError(f"{self.name}: only one of the two parts has `{name}`")
            if one is None or other is None:
                continue
            if one.shape[1:] != other.shape[1:]:
                raise ValueError(
                    f"{self.name}: `{name}` of the two parts have shapes {tuple(one.shape)} and "
                    f"{tuple(other.shape)}; they must be equal but for the first number"
                )
            if len(one) == 0:
                raise ValueError(f"{self.name} has no images to train on")
            if len(other) == 0:
                raise ValueError(f"{self.name} has no held-out images")
        if self.classes is not None and self.train.labels is not None:
            for split in (self.train, self.test):
                labels = split.labels if split.labels is not None else torch.zeros(1)
                low, high = int(labels.min()), int(labels.max())
                if low < 0 or high >= self.classes:
                    raise ValueError(
                        f"{self.name}: labels must lie between 0 and {self.classes - 1}; got "
                        f"{low if low < 0 else high}"
                    )

    def split(self, name: SplitName) -> Split:
        """The training or the held-out part."""
        return self.train if name == "train" else self.test

    @property
    def shape(self) -> Shape:
        """Shape of what the model reconstructs, (C, H, W) for images."""
        return self.view.shape(self._stored)

    @property
    def context_shape(self) -> Shape | None:
        """Shape of one image's context, or None for unconditional data."""
        if self.train.context is not None:
            return tuple(self.train.context.shape[1:])
        return self.view.context_shape(self._stored)

    @property
    def is_fixed(self) -> bool:
        """Whether the training set is a fixed set, instead of drawn anew at every step."""
        return self.view.fixed or not self.view.draws

    @property
    def _stored(self) -> Shape:
        return tuple(self.train.images.shape[1:])

    def draw(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Random numbers (count, draws) for one training batch; None if the view needs none."""
        if self.is_fixed:
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
        images = part.images.index_select(0, rows).to(torch.float32)
        if self.offset:
            images = images.sub_(self.offset)
        view = self.view(images.mul_(self.scale), draws)
        labels = None if part.labels is None else part.labels[rows]
        context = view.context if part.context is None else part.context[rows]
        mask = None if part.mask is None else part.mask[rows]
        return Batch(view.images, context, labels, mask)

    def to(self, device: torch.device) -> "Dataset":
        """A copy whose arrays live on `device`, as they are stored."""

        def move(array: Tensor) -> Tensor:
            return array.to(device)

        return replace(self, train=self.train.map(move), test=self.test.map(move))

    def limited(self, train: int | None, test: int | None) -> "Dataset":
        """A copy with only the first so many images of each part."""
        return replace(
            self,
            train=self.train.map(lambda array: array[:train]),
            test=self.test.map(lambda array: array[:test]),
        )

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the sha256 of everything that is stored."""
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            digest.update(str(tuple(split.images.shape)).encode())
            digest.update(_bytes(split.images))
            for name in ("labels", "context", "mask"):
                array = getattr(split, name)
                if array is not None:
                    digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
                    digest.update(_bytes(array))
        digest.update(f"{self.scale!r} {self.offset!r}".encode())
        return digest.hexdigest()[:16]


#: the name of the first version
ImageData = Dataset


def _bytes(array: Tensor) -> Any:
    return array.cpu().contiguous().numpy().data
