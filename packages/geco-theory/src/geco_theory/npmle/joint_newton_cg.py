r"""Newton steps on decoder values and masses together, by conjugate gradients.

For data too many for the factored system of `joint_newton`. The function is the one of there,
:math:`f = -\sum_i w_i \ln Z_i + \sum_a \pi_a`, in the values and the logarithms :math:`\eta_a` of
the masses. With :math:`m_a = \sum_i w_i q_{ia}`, a step (v, s),
:math:`\gamma_{ia} = (x_i - \psi_a) \cdot v_a / T + s_a` and :math:`t_i = \sum_b q_{ib}
\gamma_{ib}` its Hessian is, up to terms that vanish with the gradient,

.. math::
    (H(v, s))_{\psi_a} = B_a v_a + \sum_i w_i q_{ia} t_i (x_i - \psi_a) / T, \qquad
    (H(v, s))_{\eta_a} = \sum_i w_i q_{ia} t_i, \qquad
    B_a = \frac{m_a}{T} \Bigl(I - \frac{C_a}{T}\Bigr) .

:math:`B_a` is positive at a global optimum [D3, D9]; elsewhere its eigenvalues are replaced by
their sizes, so that H is positive everywhere and every step leads down. It is the preconditioner
as well: a light value then takes its own Newton step, whatever the heavy ones do. A product costs
two matrix products and nothing else for every pair.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geco_theory._typing import Array
from geco_theory.conjugate_gradients import ConjugateGradients
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import LEAST_MASS, Mixture
from geco_theory.free_energy.newton_cg import Columns, FixedMasses, Floats

__all__ = ["MovingMasses", "descend"]

_NEGLIGIBLE = 1e-4  # posterior in a whole block of rows that a product leaves out
_LEAST_SHARE = 1e-6  # of its mass that the metric of a value is at least
_ROWS = 512  # whose products of coordinates are held at once
_MOST_AXES = 64  # in which values are taken as curved
_LEAST = 0.02  # to which eigenvalues of I - C/T are raised
_RIDGE = 0.02  # over m, in the log masses: values that do the same have no curvature there
_LONGEST = 1.0  # in sqrt(T): move of one value, and of a log mass, in one step
_RELATIVE = 0.1  # residual at which a step is good enough
_MOST_PRODUCTS = 30
_SHORTEST = 0.05  # share of a step that is still tried
_NEAR = 0.2  # in sqrt(T): moves up to which the curvatures are used again
_ROUNDING = 1e-9  # of f
_FLAT = 1e-6  # least curvature that is told from zero


@dataclass(frozen=True)
class OwnCurvature:
    r"""The part of H over m / T that belongs to one value alone.

    Args:
        vectors: (k, s, s) eigenvectors of :math:`I - C_a/T` in the first s axes.
        sizes: (k, s) its eigenvalues, by their sizes.
        logs: (k,) the curvature in the log mass, :math:`\sum_i w_i q_{ia}^2 / m_a`, and a ridge;
            the first is part of what `MovingMasses.coupled` gives.
    """

    vectors: NDArray[np.float32]
    sizes: NDArray[np.float32]
    logs: Array

    def select(self, chosen: NDArray[np.intp]) -> "OwnCurvature":
        """That of some of the values."""
        return OwnCurvature(self.vectors[chosen], self.sizes[chosen], self.logs[chosen])

    def times(self, vectors: Array) -> Array:
        """The preconditioner times one vector per value, (k, r + 1)."""
        return self._scaled(vectors, self.sizes, self.logs)

    def over(self, vectors: Array) -> Array:
        """Its inverse times one vector per value."""
        return self._scaled(vectors, 1.0 / self.sizes, 1.0 / self.logs)

    def _scaled(self, vectors: Array, sizes: NDArray[np.float32], logs: Array) -> Array:
        s = self.sizes.shape[1]
        out = vectors.copy()
        inner = np.einsum("aji,aj->ai", self.vectors, vectors[:, :s].astype(np.float32))
        out[:, :s] = np.einsum("aij,aj->ai", self.vectors, sizes * inner)
        out[:, -1] *= logs
        return out


class MovingMasses(FixedMasses):
    r"""f at one mixture.

    Vectors have one more column than there are axes: :math:`s_a \sqrt{T}`, so that lengths
    are comparable.

    Args:
        data: The data.
        mixture: Decoder values and masses.
        temperature: T, in standard units.
        still: Values whose plain step is shorter, in sqrt(T), are left out.
        memory: MiB of posteriors to keep between products.
        workers: Threads.
        single: Posteriors in single precision, sums over the data in double.

    Attributes:
        moving: The values that are not left out; everything else is about those.
    """

    def __init__(
        self,
        data: StandardData,
        mixture: Mixture,
        temperature: float,
        still: float = 0.0,
        memory: float = 1024.0,
        workers: int = 1,
        *,
        single: bool = False,
    ) -> None:
        super().__init__(
            data,
            mixture,
            temperature,
            memory,
            workers,
            single=single,
            negligible=_NEGLIGIBLE,
            most_axes=_MOST_AXES,
        )
        self._reach = float(np.sqrt(temperature))
        self.height += float(mixture.masses.sum())
        # the metric: the posterior mass, but not so small that quotients by it overflow
        metric = np.maximum(self.mass, _LEAST_SHARE * mixture.masses)
        share = self.mass / metric
        to_mass = self._reach * (self.mass - mixture.masses) / metric
        pull = np.column_stack([share[:, None] * self.pull, to_mass])
        self.moving = np.flatnonzero(np.linalg.norm(pull, axis=1) > still * self._reach)
        self.pull, self.values = pull[self.moving], self.values[self.moving]
        self.mass = metric[self.moving]
        if len(self.moving) < mixture.size:
            place = np.full(mixture.size, -1)
            place[self.moving] = np.arange(len(self.moving))
            for index, (columns, q) in self._q.items():
                there = place[columns]
                self._q[index] = (there[there >= 0], q[:, there >= 0])

    def own_curvature(self) -> "OwnCurvature":
        """What belongs to one value alone."""
        s, k = self.axes, len(self.moving)
        edges = np.concatenate([[0], np.cumsum(np.arange(s, 0, -1))])  # of the rows of a triangle

        def stretch(first: int, last: int) -> tuple[Floats, Array]:
            sums, squares = np.zeros((k, edges[-1]), np.float32), np.zeros(k)
            for index in range(first, last):
                columns, whole = self._columns(index)
                begin, end = self._blocks[index].start, self._blocks[index].stop
                for top in range(begin, end, _ROWS):
                    part = slice(top, min(top + _ROWS, end))
                    q = whole[top - begin : part.stop - begin]
                    rows, weighted = self._rows[part], self._weighted[part]
                    products = np.empty((len(q), edges[-1]), self.dtype)
                    for j in range(s):
                        np.multiply(
                            rows[:, j:s],
                            weighted[:, j, None],
                            out=products[:, edges[j] : edges[j + 1]],
                        )
                    sums[columns] += q.T @ products
                    squares[columns] += weighted[:, -1] @ np.square(q)
            return sums, squares

        parts = self._over_blocks(stretch)
        sums = np.sum([part[0] for part in parts], axis=0) / self.mass[:, None]
        values = self.values[:, :s]
        left, right = np.triu_indices(s)
        second = np.empty((k, s, s))
        second[:, left, right] = second[:, right, left] = sums
        # about the value, not about the mean of what belongs to it
        cross = (values + self.pull[:, :s])[:, :, None] * values[:, None, :]
        second -= cross + cross.transpose(0, 2, 1) - values[:, :, None] * values[:, None, :]
        matrices = (np.eye(s) - second / self.temperature).astype(np.float32)
        sizes, vectors = np.linalg.eigh(matrices)
        logs = np.sum([part[1] for part in parts], axis=0) / self.mass
        return OwnCurvature(vectors, np.maximum(np.abs(sizes), _LEAST), logs + _RIDGE)

    def coupled(self, vectors: Array) -> Array:
        """What the values do to each other: the other part of H over m / T, (k, r + 1)."""
        values = self.values[:, : self.axes]
        logs = vectors[:, -1] / self._reach
        right = np.empty((len(vectors), self.axes + 1), self.dtype)
        right[:, :-1] = vectors[:, : self.axes]
        right[:, -1] = self.temperature * logs - np.einsum("ij,ij->i", values, right[:, :-1])

        def stretch(first: int, last: int) -> Array:
            sums: Array = np.zeros((len(vectors), self.axes + 1))
            for index in range(first, last):
                block = self._blocks[index]
                columns, q = self._columns(index)
                along = np.einsum("ij,ij->i", self._rows[block], q @ right[columns])
                sums[columns] += q.T @ (along[:, None] * self._weighted[block])
            return sums

        sums = np.sum(self._over_blocks(stretch), axis=0) / self.mass[:, None]
        out = np.zeros(vectors.shape)
        out[:, : self.axes] = (sums[:, :-1] - sums[:, -1:] * values) / self.temperature
        out[:, -1] = sums[:, -1] / self._reach
        return out

    def moved(self, move: Array) -> Mixture:
        """The mixture after a step (k, r + 1), without values that lose their mass."""
        values, masses = self.mixture.values.copy(), self.mixture.masses.copy()
        values[self.moving] += move[:, :-1]
        masses[self.moving] *= np.exp(move[:, -1] / self._reach)
        return Mixture(values, masses).select(masses > LEAST_MASS)

    def _columns(self, index: int) -> tuple[Columns, Floats]:
        columns, q = super()._columns(index)
        return (columns, q) if self._keep else (columns, q[:, self.moving])


def newton_direction(model: MovingMasses, own: OwnCurvature, relative: float) -> tuple[Array, int]:
    """The Newton step (k, r + 1), and how many products it took."""

    def product(vectors: Array) -> Array:
        ahead = own.over(model.coupled(vectors))
        ahead[:, :-1] += vectors[:, :-1]
        ahead[:, -1] += _RIDGE / own.logs * vectors[:, -1]
        return ahead

    def inner(left: Array, right: Array) -> float:
        return model.inner(left, own.times(right))

    solver = ConjugateGradients(product, inner, own.over(model.pull))
    move, first = np.zeros_like(model.pull), solver.square
    while solver.products < _MOST_PRODUCTS and solver.square > relative**2 * first:
        bend, size = solver.curvature()
        if bend <= _FLAT * size:
            break  # values that do the same, up to rounding
        move += solver.advance(bend)
    return move, solver.products


def descend(
    data: StandardData,
    mixture: Mixture,
    temperature: float,
    max_steps: int,
    work: Counter[str],
    still: float = 0.0,
    memory: float = 1024.0,
    workers: int = 1,
    *,
    single: bool = False,
    enough: float = 1e-8,
) -> Mixture:
    """Newton steps, shortened until f falls; f never rises.

    Args:
        data: The data.
        mixture: Where to begin.
        temperature: T, in standard units.
        max_steps: Steps at most.
        work: Counts, added to.
        still: Values whose plain step is shorter, in sqrt(T), are left out of a step; none is
            taken where that leaves none.
        memory: MiB of posteriors to keep.
        workers: Threads.
        single: Posteriors in single precision; f then never rises by more than its rounding.
        enough: Gain in ln D at the values by their next step, and fall of f, that will do.
    """

    def at(trial: Mixture) -> MovingMasses:
        return MovingMasses(data, trial, temperature, still, memory, workers, single=single)

    reach = float(np.sqrt(temperature))
    model = at(mixture)
    own, owners = None, model.moving
    for _ in range(max_steps):
        if len(model.moving) == 0:
            break
        if own is None or not np.isin(model.moving, owners).all():
            own, owners = model.own_curvature(), model.moving
        part = own.select(np.searchsorted(owners, model.moving))
        move, products = newton_direction(model, part, _RELATIVE)
        work["newton"] += 1
        work["products"] += products
        # no value, and no log mass, goes farther than the model can know of
        longest = 0.0
        for coordinates in (move[:, :-1], move[:, -1:]):
            length = np.linalg.norm(coordinates, axis=1) / reach
            coordinates *= (1.0 / np.maximum(length / _LONGEST, 1.0))[:, None]
            longest = max(longest, float(length.max()))
        rise = np.einsum("ij,ij->i", model.pull, move) / temperature
        slope, share = float(model.mass @ rise), 1.0
        while True:
            ahead = at(model.moved(share * move))
            fall = model.height - ahead.height
            if fall >= 0.1 * share * slope - _ROUNDING or share < _SHORTEST:
                break
            share *= 0.3
            work["shortened"] += 1
        gain = np.einsum("ij,ij->i", model.pull[:, :-1], move[:, :-1]) / temperature
        off = float(np.abs(gain).max())
        if fall > 0.0:
            if longest > _NEAR or ahead.mixture.size != model.mixture.size:
                own = None
            model = ahead
        if fall <= 0.0 or (share == 1.0 and max(off, slope) < enough):
            break
    return model.mixture.normalised()
