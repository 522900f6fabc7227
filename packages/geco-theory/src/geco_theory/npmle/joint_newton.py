r"""A joint Newton step on decoder values and masses, from a factored Hessian.

Wang (2007) takes the constrained Newton step on the masses alone; here the values move with them.

The function is :math:`f(\pi, \psi) = -\sum_i w_i \ln Z_i + \sum_a \pi_a`; its minimum over
:math:`\pi \ge 0` has masses that sum to 1 and is F/T + 1 there. Up to terms that vanish with the
gradient its Hessian is

.. math:: H = \begin{pmatrix} 0 & 0 \\ 0 & B \end{pmatrix} + S^T W S ,

B block diagonal, row i of S holding :math:`(q_{ia}/\pi_a,\; q_{ia}(x_i - \psi_a)/T)`. The values
are eliminated exactly (Woodbury; `hessian`), and what is left is a convex quadratic program in
the masses alone, with matrix :math:`R^T (I + M)^{-1} R`, :math:`R_{ia} = \sqrt{w_i} q_{ia}/\pi_a`.
It sets masses to exactly zero, which is how values die.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geco_theory._typing import Array
from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.npmle.hessian import Curvature, curvature
from geco_theory.npmle.quadratic_program import nonnegative_minimum

_RIDGE = 1e-12
_LONGEST_MOVE = 2.0  # of a value in one step, in sqrt(T): the model knows nothing farther off


@dataclass(frozen=True)
class Direction:
    """A Newton step and how fast f falls along it.

    Args:
        masses: (k,) change of the masses; the full step keeps them non-negative.
        values: (k, r) change of the values.
        slope: Derivative of f along the step; negative.
        excess: How far ln D is from 0 at a value, or would rise by the step of that value: the
            certificate cannot be expected to be smaller.
    """

    masses: Array
    values: Array
    slope: float
    excess: float


@dataclass(frozen=True)
class NewtonSystem:
    """The factored Hessian at one mixture; good for several steps near it.

    Args:
        curvature: The part that belongs to the values.
        gram: (k, k) matrix of the quadratic program in the masses.
    """

    curvature: Curvature
    gram: Array

    @classmethod
    def at(
        cls,
        data: StandardData,
        mixture: Mixture,
        temperature: float,
        q: Array,
        least: float = 0.02,
    ) -> "NewtonSystem":
        """Factor the Hessian at `mixture`, whose responsibilities (n, k) are `q`."""
        part = curvature(data, mixture, temperature, q, least)
        relative = np.sqrt(data.weights)[:, None] * (q / mixture.masses)
        gram = part.quadratic(relative)
        gram[np.diag_indices(len(gram))] *= 1.0 + _RIDGE
        return cls(part, gram)

    def select(self, kept: NDArray[np.bool_]) -> "NewtonSystem":
        """The same system for part of the values."""
        return NewtonSystem(self.curvature.select(kept), self.gram[np.ix_(kept, kept)])

    def direction(
        self,
        data: StandardData,
        mixture: Mixture,
        temperature: float,
        q: Array,
        floor: float = 0.0,
    ) -> Direction:
        """The Newton step at `mixture`, with the gradient there and this Hessian.

        Args:
            data: The data.
            mixture: Decoder values and masses.
            temperature: T, in standard units.
            q: (n, k) responsibilities.
            floor: No mass falls below this share of what it is.
        """
        root = np.sqrt(data.weights)
        masses, values = mixture.masses, mixture.values
        mass = data.weights @ q
        pull = (q.T @ (data.weights[:, None] * data.rows)) / mass[:, None] - values
        own = self.curvature.apply(pull)  # where the values would go on their own
        effect = root * along(data.rows, mixture, q, own) / temperature
        dual = self.curvature.solve(effect)
        # minimise c.d + d.G.d/2 with masses + d >= 0, written for the new masses p = masses + d
        slopes = 1.0 - mass / masses
        linear = self.gram @ masses - slopes - (q / masses).T @ (root * dual)
        least = floor * masses
        new = least + nonnegative_minimum(self.gram, linear - self.gram @ least)
        change = new - masses
        dual = self.curvature.solve(root * (q @ (change / masses)) + effect)
        force = against(data.rows, mixture, q, root * dual)
        move = own - self.curvature.apply(force / mass[:, None])
        length = np.linalg.norm(move, axis=1) / np.sqrt(temperature)
        move *= np.minimum(1.0, _LONGEST_MOVE / np.maximum(length, _LONGEST_MOVE))[:, None]
        rise = np.einsum("ij,ij->i", pull, move) / temperature
        excess = float(np.maximum(np.abs(slopes), np.abs(rise)).max())
        return Direction(change, move, float(change @ slopes - mass @ rise), excess)


def along(rows: Array, mixture: Mixture, q: Array, move: Array) -> Array:
    """sum_a q_ia (x_i - psi_a).move_a, shape (n,)."""
    inner = rows @ move.T
    inner -= np.einsum("ij,ij->i", mixture.values, move)
    return np.asarray(np.einsum("ij,ij->i", q, inner))


def against(rows: Array, mixture: Mixture, q: Array, y: Array) -> Array:
    """sum_i y_i q_ia (x_i - psi_a), shape (k, r): the transpose of `along`."""
    scaled = q * y[:, None]
    return np.asarray(scaled.T @ rows - scaled.sum(axis=0)[:, None] * mixture.values)
