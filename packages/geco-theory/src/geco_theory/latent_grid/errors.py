r"""Reconstruction errors that Eqs. (5) and (6) can be solved for on a latent grid.

Each is the constraint :math:`C(x, g)` without its tolerance :math:`\kappa^2`, which cancels in
Eq. (5) and has no gradient in Eq. (6). Steps for Eq. (6) are Gauss-Newton steps with damping
(Levenberg 1944, Marquardt 1963) or gradient steps of the length of Barzilai and Borwein (1988).
Three kinds:

- `SquaredError`: RE. Eq. (6) is Eq. (4): the weighted mean (D1).
- `FeatureError`: FRE with any differentiable features :math:`f`. With weights
  :math:`w_i(z)` and :math:`\bar f = \sum_i w_i f(x_i)`, Eq. (6) reads
  :math:`J_f(g)^\top (f(g) - \bar f) = 0`: a nonlinear least-squares problem in every cell.
- `DifferentiableError`: any other, given by its value and its gradient in the reconstruction.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from geco_theory._typing import Array
from geco_theory.linalg import squared_distances

__all__ = ["AbstractGridError", "DifferentiableError", "FeatureError", "SquaredError"]

Weighted = Callable[[Array], tuple[Array, Array]]
# the Jacobians of so many cells are held at once
BLOCK_BYTES = 2**26


class AbstractGridError(ABC):
    """What the solver on a latent grid asks of a reconstruction error.

    Shapes: data (b, d), prepared data (b, k), decoder values (m, d).
    """

    @abstractmethod
    def elements(self, prepared: Array) -> float:
        """The number d of elements in the mean, so that temperature = d / (2 multiplier)."""

    @abstractmethod
    def prepare(self, X: Array) -> Array:
        """What of the data is needed at every step (b, k), computed once."""

    @abstractmethod
    def represent(self, decoder: Array) -> Array:
        """The same of the decoder values (m, k)."""

    @abstractmethod
    def pairwise(self, prepared: Array, represented: Array) -> Array:
        """The error C(x_i, psi_a) of all pairs (b, m)."""

    @abstractmethod
    def accumulate(self, prepared: Array, represented: Array, weights: Array) -> Array:
        """A statistic of the cells (m, s), linear in the weights (b, m)."""

    @abstractmethod
    def residual(self, decoder: Array, represented: Array, statistic: Array) -> Array:
        """The left side of Eq. (6) under normalised weights (m, d)."""

    @abstractmethod
    def solve(
        self, decoder: Array, represented: Array, statistic: Array, weighted: Weighted
    ) -> Array:
        """Decoder values (m, d) that solve Eq. (6), or lower every cell's weighted error.

        `weighted` maps decoder values to the weighted error (m,) and gradient (m, d) of every
        cell under the weights that `statistic` was made with.
        """


class SquaredError(AbstractGridError):
    r"""RE: :math:`C(x, g) = \frac1d \sum_j (x_j - g_j)^2`."""

    def elements(self, prepared: Array) -> float:
        """The number of features of the data."""
        return float(prepared.shape[1])

    def prepare(self, X: Array) -> Array:
        """The data themselves."""
        return X

    def represent(self, decoder: Array) -> Array:
        """The decoder values themselves."""
        return decoder

    def pairwise(self, prepared: Array, represented: Array) -> Array:
        """Mean squared differences of all pairs."""
        return np.asarray(squared_distances(prepared, represented) / prepared.shape[1])

    def accumulate(self, prepared: Array, represented: Array, weights: Array) -> Array:
        """Weighted sums of the data."""
        return weights.T @ prepared

    def residual(self, decoder: Array, represented: Array, statistic: Array) -> Array:
        """Twice the mean distance from the weighted mean."""
        return np.asarray(2.0 / decoder.shape[1] * (decoder - statistic))

    def solve(
        self, decoder: Array, represented: Array, statistic: Array, weighted: Weighted
    ) -> Array:
        """Eq. (4): the weighted mean."""
        return statistic


class FeatureError(AbstractGridError):
    r"""FRE: :math:`C(x, g) = \frac1k \sum_j (f(x)_j - f(g)_j)^2` with k features.

    A reconstruction error plus a feature error is this one with scaled elements and features
    joined into one vector.

    Args:
        features: f, maps (b, d) to (b, k).
        jvp: its Jacobian-vector product: ``jvp(g, v)`` maps (m, d) and (m, d) to (m, k).
        vjp: its transpose, ``vjp(g, u)``: (m, d) and (m, k) to (m, d). Optional; without it the
            Jacobian is formed with d calls of `jvp`.
        steps: the largest number of damped Gauss-Newton steps for Eq. (6) in one iteration.
    """

    def __init__(
        self,
        features: Callable[[Array], Array],
        jvp: Callable[[Array, Array], Array],
        vjp: Callable[[Array, Array], Array] | None = None,
        *,
        steps: int = 20,
    ) -> None:
        self.features = features
        self.jvp = jvp
        self.vjp = vjp
        self.steps = steps

    def elements(self, prepared: Array) -> float:
        """The number of features f."""
        return float(prepared.shape[1])

    def prepare(self, X: Array) -> Array:
        """The features of the data."""
        return self._evaluate(X, "data")

    def represent(self, decoder: Array) -> Array:
        """The features of the decoder values."""
        return self._evaluate(decoder, "decoder values")

    def pairwise(self, prepared: Array, represented: Array) -> Array:
        """Mean squared differences of the features of all pairs."""
        return np.asarray(squared_distances(prepared, represented) / prepared.shape[1])

    def accumulate(self, prepared: Array, represented: Array, weights: Array) -> Array:
        """Weighted sums of the data's features."""
        return weights.T @ prepared

    def residual(self, decoder: Array, represented: Array, statistic: Array) -> Array:
        """Twice the mean pull-back of the features' distance from their weighted mean."""
        difference = represented - statistic
        if self.vjp is None:
            pulled = np.einsum("mkd,mk->md", self._jacobian(decoder), difference)
        else:
            pulled = self.vjp(decoder, difference)
        return np.asarray(2.0 / difference.shape[1] * pulled)

    def solve(
        self, decoder: Array, represented: Array, statistic: Array, weighted: Weighted
    ) -> Array:
        """Damped Gauss-Newton steps (Levenberg-Marquardt), each cell with its own damping."""
        width = decoder.shape[1]
        block = max(1, int(BLOCK_BYTES / (8 * width * (represented.shape[1] + 3 * width))))
        parts = [slice(i, i + block) for i in range(0, decoder.shape[0], block)]
        return np.concatenate(
            [self._gauss_newton(decoder[p], represented[p], statistic[p]) for p in parts]
        )

    def _gauss_newton(self, decoder: Array, represented: Array, statistic: Array) -> Array:
        """The same for as many cells as fit into one block."""
        g = decoder.copy()
        difference = represented - statistic
        cost = np.einsum("mk,mk->m", difference, difference)
        damping = np.full(g.shape[0], 1e-6)
        moving = np.arange(g.shape[0])
        identity = np.eye(g.shape[1])
        for _ in range(self.steps):
            jacobian = self._jacobian(g[moving])
            pulled = np.einsum("mkd,mk->md", jacobian, difference[moving])
            normal = np.matmul(jacobian.transpose(0, 2, 1), jacobian)
            size = np.einsum("mdd->m", normal) / g.shape[1]
            # features may be fewer than elements: the ridge picks the nearest of many solutions
            ridge = (damping[moving] * size + np.finfo(float).tiny)[:, None, None]
            step = -np.linalg.solve(normal + ridge * identity, pulled[..., None])[..., 0]
            trial = self.represent(g[moving] + step) - statistic[moving]
            trial_cost = np.einsum("mk,mk->m", trial, trial)
            better = trial_cost < cost[moving]
            accepted = moving[better]
            g[accepted] += step[better]
            difference[accepted] = trial[better]
            cost[accepted] = trial_cost[better]
            damping[moving] *= np.where(better, 1.0 / 9.0, 11.0)
            small = np.abs(step).max(axis=1) <= 1e-12 * (1.0 + np.abs(g[moving]).max(axis=1))
            moving = moving[~small & (damping[moving] < 1e12)]
            if moving.size == 0:
                break
        return g

    def _jacobian(self, decoder: Array) -> Array:
        """The Jacobian of the features in every cell (m, k, d), one product per element."""
        columns = []
        for j in range(decoder.shape[1]):
            direction = np.zeros_like(decoder)
            direction[:, j] = 1.0
            columns.append(np.asarray(self.jvp(decoder, direction), dtype=np.float64))
        return np.stack(columns, axis=-1)

    def _evaluate(self, values: Array, what: str) -> Array:
        """The features of rows, checked."""
        found = np.asarray(self.features(values), dtype=np.float64)
        if found.ndim != 2 or found.shape[0] != values.shape[0]:
            raise ValueError(
                f"`features` must map (rows, d) to (rows, k), got shape {found.shape} for "
                f"{values.shape[0]} rows."
            )
        if not np.isfinite(found).all():
            raise ValueError(
                f"`features` must be finite, got NaN or infinite values on the {what}."
            )
        return found


class DifferentiableError(AbstractGridError):
    r"""Any error :math:`C(x, g)` that has a gradient in the reconstruction.

    The temperature that belongs to a multiplier is :math:`1 / \lambda` here.

    Args:
        value: ``value(X, g)`` gives C of all pairs: (b, d) and (m, d) to (b, m).
        gradient: ``gradient(X, g, weights)`` gives :math:`\sum_i w_{ia} \, \partial C(x_i, g_a) /
            \partial g_a`: (b, d), (m, d) and weights (b, m) to (m, d).
        steps: the largest number of gradient steps for Eq. (6) in one iteration.
    """

    def __init__(
        self,
        value: Callable[[Array, Array], Array],
        gradient: Callable[[Array, Array, Array], Array],
        *,
        steps: int = 20,
    ) -> None:
        self.value = value
        self.gradient = gradient
        self.steps = steps

    def elements(self, prepared: Array) -> float:
        """Two, so that temperature = 1 / multiplier."""
        return 2.0

    def prepare(self, X: Array) -> Array:
        """The data themselves."""
        return X

    def represent(self, decoder: Array) -> Array:
        """The decoder values themselves."""
        return decoder

    def pairwise(self, prepared: Array, represented: Array) -> Array:
        """The error of all pairs, checked.

        Raises:
            ValueError: if `value` returns another shape or values that are not finite.
        """
        found = np.asarray(self.value(prepared, represented), dtype=np.float64)
        shape = (prepared.shape[0], represented.shape[0])
        if found.shape != shape or not np.isfinite(found).all():
            raise ValueError(
                f"`value` must give finite errors of all pairs, shape {shape}, got "
                f"{'values that are not finite' if found.shape == shape else found.shape}."
            )
        return found

    def accumulate(self, prepared: Array, represented: Array, weights: Array) -> Array:
        """Weighted sums of the gradients.

        Raises:
            ValueError: if `gradient` returns another shape.
        """
        found = np.asarray(self.gradient(prepared, represented, weights), dtype=np.float64)
        if found.shape != represented.shape:
            raise ValueError(
                f"`gradient` must have the shape of the reconstructions, {represented.shape}, "
                f"got {found.shape}."
            )
        return found

    def residual(self, decoder: Array, represented: Array, statistic: Array) -> Array:
        """The weighted mean gradient."""
        return statistic

    def solve(
        self, decoder: Array, represented: Array, statistic: Array, weighted: Weighted
    ) -> Array:
        """Gradient steps of the Barzilai-Borwein length, each cell safeguarded by its error."""
        g = decoder.copy()
        cost, slope = weighted(g)
        length = np.full(g.shape[0], 1.0)
        for _ in range(self.steps):
            trial = g - length[:, None] * slope
            trial_cost, trial_slope = weighted(trial)
            better = trial_cost < cost
            moved, turned = trial - g, trial_slope - slope
            along = np.einsum("md,md->m", moved, turned)
            square = np.einsum("md,md->m", moved, moved)
            curved = better & (along > 0)
            ratio = np.divide(square, along, out=2.0 * length, where=curved)
            length = np.where(better, np.minimum(ratio, 100.0 * length), 0.25 * length)
            g[better] = trial[better]
            cost[better] = trial_cost[better]
            slope[better] = trial_slope[better]
            if not np.any(length * np.abs(slope).max(axis=1) > 1e-14 * (1.0 + np.abs(g).max())):
                break
        return g
