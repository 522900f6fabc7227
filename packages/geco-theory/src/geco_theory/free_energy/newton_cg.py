r"""The free energy of decoder values with fixed masses: gradient, Hessian products, Newton steps.

With :math:`q_{ia}` from Eq. (3), :math:`m_a = \sum_i w_i q_{ia}` and g the update of Eq. (4),

.. math::
    \frac{\partial (F/T)}{\partial \psi_a} = \frac{m_a}{T} (\psi_a - g_a), \qquad
    H = \frac{m}{T} (I - J),

and J is symmetric in the inner product :math:`\langle u, v \rangle = \sum_a m_a\, u_a \cdot v_a
/ T`:

.. math::
    (J v)_a = \frac{1}{T m_a} \sum_i w_i q_{ia} \bigl[(x_i - \psi_a) \cdot v_a - t_i\bigr]
    (x_i - \psi_a), \qquad t_i = \sum_b q_{ib} (x_i - \psi_b) \cdot v_b .

Truncated Newton steps by conjugate gradients (Steihaug 1983). A product with J costs two matrix
products, as an iteration does, and no exponentials. It only steers the steps (F and its gradient
are computed from everything, in double precision), so it is taken in single precision where that
is exact enough and in the leading principal axes; along axes of little variance J is taken to be
0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geco_theory._typing import Array
from geco_theory.conjugate_gradients import ConjugateGradients
from geco_theory.free_energy.blahut_arimoto import (
    exponent_columns,
    normalise,
    responsibilities,
)
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.parallel import over_rows

_BLOCK = 2**18  # numbers in one block of pairs
_SCREENED = 2**16  # the same where values are left out of blocks
_MOST_COLUMNS = 0.8  # share of the values up to which the others are left out
_LITTLE = 1e-3  # variance over T that the left-out axes may hold together
_FLAT = 1e-5  # least curvature that is told from zero
_SURE = 1e-3  # residual of a step whose length is relied on
_MOST_PRODUCTS = 400
_MAX_SINGLE = 1e3  # |x|^2/T up to which products in single precision are exact enough
Floats = NDArray[np.floating]
Columns = NDArray[np.intp] | slice
T = TypeVar("T")


class FixedMasses:
    """F/T at one set of decoder values.

    Args:
        data: The data.
        mixture: Decoder values and their fixed masses.
        temperature: T, in standard units.
        memory: MiB of posteriors to keep between products; where they are more, every product
            computes them again in blocks of rows.
        workers: Threads.
        single: Posteriors in single precision, sums over the data in double.
        negligible: A value whose posterior is below this in a whole block of rows is left out of
            the products with that block.
        most_axes: Principal axes at most that products are taken in.

    Attributes:
        height: F/T.
        values: (k, r) the decoder values.
        mass: (k,) posterior mass of every value.
        pull: (k, r) the plain step, g - psi.
    """

    def __init__(
        self,
        data: StandardData,
        mixture: Mixture,
        temperature: float,
        memory: float = 1024.0,
        workers: int = 1,
        *,
        single: bool = False,
        negligible: float = 0.0,
        most_axes: int | None = None,
    ) -> None:
        self.data = data
        self.mixture = mixture
        self.values = mixture.values
        self.temperature = temperature
        self.workers = workers
        n, r = data.rows.shape
        k = mixture.size
        self.axes = min(data.leading_axes(_LITTLE * temperature), most_axes or r)
        self.single = single
        low = single or float(data.squares.max()) / temperature < _MAX_SINGLE
        self.dtype: type[np.floating] = np.float32 if low else np.float64
        leading = slice(None) if self.axes == r else [*range(self.axes), r]
        self._rows = data.with_ones(self.dtype)[:, leading]
        self._weighted = data.weighted(self.dtype)[:, leading]
        height = max(32, (_SCREENED if negligible > 0.0 else _BLOCK) // k)
        self._blocks = [slice(begin, min(begin + height, n)) for begin in range(0, n, height)]
        self._keep = n * k * self._rows.itemsize <= memory * 2**20
        self._q: dict[int, tuple[Columns, Floats]] = {}
        weighted = data.weighted(np.float32 if single else np.float64)
        log_z = np.empty(n)

        def stretch(first: int, last: int) -> Array:
            sums: Array = np.zeros((k, r + 1))
            for index in range(first, last):
                block = self._blocks[index]
                q, log_z[block] = self._posterior(block)
                sums += q.T @ weighted[block]
                if self._keep:
                    self._q[index] = _screened(q, negligible, self.dtype)
            return sums

        sums = np.sum(self._over_blocks(stretch), axis=0)
        self.height = -float(data.weights @ log_z)
        mass = sums[:, r]
        self.mass: Array = np.maximum(mass, 1e-300)
        self.pull: Array = sums[:, :r] / self.mass[:, None] - (mass > 0)[:, None] * mixture.values

    def inner(self, left: Array, right: Array) -> float:
        """The inner product in which J is symmetric."""
        return float(self.mass @ np.einsum("ij,ij->i", left, right)) / self.temperature

    def curved(self, vectors: Array) -> Array:
        """(I - J) times one vector per value, (k, r)."""
        values = self.values[:, : self.axes]
        leading = vectors[:, : self.axes]
        right = np.empty((len(vectors), self.axes + 1), self.dtype)
        right[:, :-1] = leading
        right[:, -1] = -np.einsum("ij,ij->i", values, leading)

        def stretch(first: int, last: int) -> Array:
            sums: Array = np.zeros((len(vectors), self.axes + 1))
            for index in range(first, last):
                block = self._blocks[index]
                columns, q = self._columns(index)
                along = self._rows[block] @ right[columns].T
                along -= np.einsum("ij,ij->i", along, q)[:, None]
                along *= q
                sums[columns] += along.T @ self._weighted[block]
            return sums

        sums = np.sum(self._over_blocks(stretch), axis=0) / self.mass[:, None]
        out = vectors.copy()
        out[:, : self.axes] -= (sums[:, :-1] - sums[:, -1:] * values) / self.temperature
        return out

    def _over_blocks(self, work: Callable[[int, int], T]) -> list[T]:
        return over_rows(work, len(self._blocks), self.workers, least=2)

    def _columns(self, index: int) -> tuple[Columns, Floats]:
        """The values that matter to a block of rows, and their posteriors there."""
        if self._keep:
            return self._q[index]
        return slice(None), self._posterior(self._blocks[index])[0].astype(self.dtype, copy=False)

    def _posterior(self, block: slice) -> tuple[Floats, Array]:
        """The responsibilities of a block of rows, and its ln Z."""
        if not self.single:
            return responsibilities(self.data.rows[block], self.mixture, self.temperature)
        q = self.data.with_ones(np.float32)[block] @ self._pairs
        half = self.data.squares[block] / (2 * self.temperature)
        return q, normalise(q) - half

    @cached_property
    def _pairs(self) -> NDArray[np.float32]:
        """(r + 1, k) what the rows are multiplied by for all exponents."""
        return exponent_columns(self.mixture, self.temperature).astype(np.float32)


def _screened(q: Floats, negligible: float, dtype: type[np.floating]) -> tuple[Columns, Floats]:
    """The columns of q that are not negligible, and q there."""
    if negligible > 0.0:
        columns = np.flatnonzero(q.max(axis=0) > negligible)
        if len(columns) < _MOST_COLUMNS * q.shape[1]:
            return columns, q[:, columns].astype(dtype)
    return slice(None), q.astype(dtype, copy=False)


@dataclass(frozen=True)
class Step:
    """A step from the quadratic model.

    Args:
        move: (k, r) change of the values.
        fall: By how much F/T falls in the model.
        downward: Whether a direction of no positive curvature was met.
        bounded: Whether the step was cut short.
        products: Hessian products taken.
    """

    move: Array
    fall: float
    downward: bool
    bounded: bool
    products: int

    @property
    def longest(self) -> float:
        """How far the value moves that moves the farthest."""
        return _longest(self.move)


def newton_step(model: FixedMasses, radius: float, relative: float, enough: float) -> Step:
    """The Newton step by conjugate gradients, cut where one value would move too far.

    A direction of negative curvature is followed up to there.

    Args:
        model: The free energy at the present values.
        radius: Longest move of one value, in standard units.
        relative: Residual, relative to the gradient, at which a step is good enough.
        enough: Length (of the longest move) below which the step is solved to 1e-3, because its
            length is what says that the solution has been reached.
    """
    move = np.zeros_like(model.pull)
    solver = ConjugateGradients(model.curved, model.inner, model.pull)
    first, fall = solver.square, 0.0
    if first == 0.0:
        return Step(move, 0.0, False, False, 0)
    while solver.products < _MOST_PRODUCTS:
        square, direction = solver.square, solver.direction
        bend, size = solver.curvature()
        downward = bend <= _FLAT * size
        if downward or _longest(move + square / bend * direction) >= radius:
            length = _to_edge(move, direction, radius)
            fall += length * square - 0.5 * length**2 * bend
            return Step(move + length * direction, fall, downward, True, solver.products)
        move += solver.advance(bend)
        fall += 0.5 * square / bend * square
        wanted = relative if _longest(move) > enough else _SURE
        if solver.square <= wanted**2 * first:
            return Step(move, fall, False, False, solver.products)
    return Step(move, fall, False, True, _MOST_PRODUCTS)


def downward_direction(model: FixedMasses, products: int = 25) -> Array | None:
    """A direction of negative curvature, (k, r), looked for from a random one; None if not found.

    At a saddle the gradient can have no part along it, and then no step finds it.
    """
    start = np.random.default_rng(0).normal(size=model.pull.shape)
    solver = ConjugateGradients(model.curved, model.inner, start / np.sqrt(model.mass)[:, None])
    first = solver.square
    for _ in range(products):
        direction = solver.direction
        bend, size = solver.curvature()
        if bend <= -_FLAT * size:
            return np.asarray(direction / _longest(direction))
        solver.advance(max(bend, 1e-300))
        if solver.square <= 1e-12 * first:
            break
    return None


def _longest(move: Array) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", move, move).max()))


def _to_edge(move: Array, direction: Array, radius: float) -> float:
    """How far along `direction` until the first value has moved by `radius`."""
    square = np.maximum(np.einsum("ij,ij->i", direction, direction), 1e-300)
    across = np.einsum("ij,ij->i", move, direction)
    rest = np.maximum(radius**2 - np.einsum("ij,ij->i", move, move), 0.0)
    return float(((np.sqrt(across**2 + square * rest) - across) / square).min())
