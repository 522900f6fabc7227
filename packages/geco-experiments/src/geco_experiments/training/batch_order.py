"""The order of the images: an endless stream of shuffled epochs, known from the seed alone."""

import torch
from torch import Tensor

from geco_experiments.runtime.random_streams import stream_seed

__all__ = ["Order"]


class Order:
    """Rows of every batch as a function of the step, so that any step can be the next one.

    Batches run through one shuffled epoch after the other; a batch that an epoch's end cuts is
    completed from the next epoch, so that all batches have one size and every image is seen
    equally often.

    Args:
        count: Images in the training set.
        batch_size: Rows per batch, over all processes.
        seed: The run's seed.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = -1
        self._rows = torch.empty(0, dtype=torch.int64)

    def rows(self, step: int) -> Tensor:
        """The rows (batch_size,) of step `step`, counted from 0."""
        start = step * self.batch_size
        stop = start + self.batch_size
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.count)
            part = self._permutation(epoch)[offset : offset + stop - start]
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, 1, epoch))
            self._rows = torch.randperm(self.count, generator=generator)
            self._epoch = epoch
        return self._rows
