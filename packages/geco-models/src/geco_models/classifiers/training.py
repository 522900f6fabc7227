"""Training and testing the classifiers: plain loops over images in memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from geco_models.validation import as_positive

__all__ = ["accuracy", "train_classifier"]

WARM_UP = 0.15
"""The share of the steps in which the learning rate rises."""


def train_classifier(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int = 128,
    rate: float = 3e-3,
    weight_decay: float = 0.02,
    padding: int = 0,
    flip: bool = False,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Trains a classifier by AdamW on the cross-entropy, with a rate that rises and falls.

    The rate rises linearly over the first 15% of all steps and falls to zero along a cosine.
    Batches are moved to the model's device; 8-bit images are divided by 255 on the way.

    Args:
        model: The classifier (any module from images to logits), changed in place and left in
            evaluation mode.
        images: Images, (n, C, H, W): floating point in [0, 1], or 8-bit integers.
        labels: Their classes, (n,), integers.
        epochs: How often each image is seen.
        batch_size: Images a step.
        rate: The highest learning rate.
        weight_decay: The weight decay of AdamW.
        padding: Each batch is shifted by up to so many pixels along either side, the border
            being continued; 0 for no shifts.
        flip: Whether half of the images are mirrored from left to right.
        generator: The source of randomness (on the CPU); the global one if None.
        progress: Called after each epoch with the number of epochs done and the mean loss.

    Returns:
        The mean loss of each epoch, in nats.

    Raises:
        TypeError: If `epochs`, `batch_size` or `padding` is not an integer, or the labels are
            not integers.
        ValueError: If one of them is too small, there are no images, or not as many labels as
            images.
    """
    _check_pairs(images, labels)
    as_positive(epochs, "epochs")
    as_positive(batch_size, "batch_size")
    as_positive(padding, "padding", 0)
    device = _device(model, images)
    batches = -(-len(images) // batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, total_steps=epochs * batches + 1, pct_start=WARM_UP
    )
    history = []
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        total = torch.zeros((), device=device)
        for rows in torch.split(order, batch_size):
            x = _as_float(images[rows].to(device))
            x = _augmented(x, padding, flip, generator)
            loss = functional.cross_entropy(model(x), labels[rows].to(device).long())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(rows)
        history.append(float(total) / len(images))
        if progress is not None:
            progress(epoch + 1, history[-1])
    model.eval()
    return history


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> float:
    """The share of images whose most probable class is the right one.

    Args:
        model: The classifier (any module from images to logits).
        images: Images, (n, C, H, W): floating point in [0, 1], or 8-bit integers.
        labels: Their classes, (n,), integers.
        batch_size: Images at a time.

    Returns:
        A number in [0, 1].

    Raises:
        TypeError: If the labels are not integers.
        ValueError: If there are no images, or not as many labels as images.
    """
    _check_pairs(images, labels)
    device = _device(model, images)
    right = torch.zeros((), dtype=torch.int64, device=device)
    for x, y in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
        predicted = model(_as_float(x.to(device))).argmax(1)
        right += (predicted == y.to(device)).sum()
    return float(right) / len(images)


def _check_pairs(images: Tensor, labels: Tensor) -> None:
    if len(images) == 0:
        raise ValueError("`images` must hold at least one image, got none")
    if labels.shape != (len(images),):
        msg = f"`labels` must be ({len(images)},), one per image, got {tuple(labels.shape)}"
        raise ValueError(msg)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"`labels` must be integers (class numbers), got {labels.dtype}")


def _device(model: nn.Module, images: Tensor) -> torch.device:
    parameter = next(model.parameters(), None)
    return images.device if parameter is None else parameter.device


def _as_float(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float() / 255


def _augmented(x: Tensor, padding: int, flip: bool, generator: torch.Generator | None) -> Tensor:
    """Images shifted and mirrored at random, each on its own."""
    batch, _, height, width = x.shape
    if padding:
        x = functional.pad(x, (padding,) * 4, mode="replicate")
        shifts = torch.randint(2 * padding + 1, (2, batch), generator=generator).to(x.device)
        rows = shifts[0, :, None] + torch.arange(height, device=x.device)
        columns = shifts[1, :, None] + torch.arange(width, device=x.device)
        example = torch.arange(batch, device=x.device)[:, None, None]
        # advanced indices around the slice of channels put those last
        x = x[example, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(batch, generator=generator).to(x.device) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x
