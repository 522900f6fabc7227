r"""A grid over a latent space of one or two dimensions that carries the prior's mass.

The latent space with its prior :math:`\pi = \mathcal N(0, I)` is cut into cells along equal steps
of every coordinate; the outermost cells reach to infinity, so the masses

.. math:: \pi_a = \prod_k \bigl[\Phi(b_k) - \Phi(a_k)\bigr]

sum to one exactly and an integral over :math:`\pi` becomes a sum over cells. Masses are kept as
logarithms: far from the origin they are smaller than the smallest float.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

from geco_theory.memory import require_memory
from geco_theory.validation import positive, whole_number

__all__ = ["LatentGrid", "gaussian_grid"]


@dataclass(frozen=True)
class LatentGrid:
    """Cells of a latent space; make one with `gaussian_grid`.

    Attributes:
        nodes: the middle of every cell (cells, dimensions), the last coordinate fastest.
        log_mass: the logarithm of the prior mass of every cell (cells,).
        shape: the number of cells along each coordinate.
        edges: the inner borders of the cells along each coordinate, shape (shape[k] - 1,).
    """

    nodes: NDArray[np.float64]
    log_mass: NDArray[np.float64]
    shape: tuple[int, ...]
    edges: tuple[NDArray[np.float64], ...]

    @property
    def cells(self) -> int:
        """The number of cells."""
        return int(self.log_mass.size)

    @property
    def dimensions(self) -> int:
        """The number of latent dimensions, 1 or 2."""
        return len(self.shape)


def gaussian_grid(cells: int = 31, *, dimensions: int = 2, extent: float = 3.0) -> LatentGrid:
    r"""Cut a standard normal latent space into cells of equal steps.

    Args:
        cells: the number of cells along each coordinate, at least 2.
        dimensions: the number of latent dimensions, 1 or 2.
        extent: the cells' middles run from `-extent` to `extent`, in standard deviations.

    Returns:
        The grid, with ``cells**dimensions`` cells.

    Raises:
        TypeError: `cells` or `dimensions` is not a whole number, or `extent` not a number.
        ValueError: `cells` < 2, `dimensions` is neither 1 nor 2, `extent` is not positive, or
            the nodes alone would not fit in memory.

    Example:
        >>> grid = gaussian_grid(5, dimensions=1, extent=2.0)
        >>> grid.nodes[:, 0]
        array([-2., -1.,  0.,  1.,  2.])
    """
    along = whole_number(cells, "cells", least=2)
    rank = whole_number(dimensions, "dimensions", least=1)
    if rank > 2:
        raise ValueError(
            f"`dimensions` must be 1 or 2, got {rank}; a grid over more would need "
            f"{along}**{rank} cells: use PhaseTransitions, whose tiles need no grid."
        )
    reach = positive(extent, "extent")
    require_memory((rank + 1) * 8.0 * float(along) ** rank, f"a grid of {along}**{rank} cells")

    ticks = np.linspace(-reach, reach, along)
    borders = 0.5 * (ticks[1:] + ticks[:-1])
    lower = np.concatenate([[-np.inf], borders])
    upper = np.concatenate([borders, [np.inf]])
    # the difference of two tails, taken on the side where it does not cancel
    flip = lower + upper > 0
    low, high = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    log_line = log_ndtr(high) + np.log1p(-np.exp(log_ndtr(low) - log_ndtr(high)))
    log_line -= logsumexp(log_line)
    if rank == 1:
        return LatentGrid(ticks[:, None], log_line, (along,), (borders,))
    nodes = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    log_mass = (log_line[:, None] + log_line[None, :]).ravel()
    return LatentGrid(nodes, log_mass, (along, along), (borders, borders))
