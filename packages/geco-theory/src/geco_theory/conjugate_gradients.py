"""The method of conjugate gradients, one iteration at a time (Hestenes and Stiefel 1952)."""

from collections.abc import Callable

from geco_theory._typing import Array

__all__ = ["ConjugateGradients"]


class ConjugateGradients:
    """Solves A v = b for A symmetric in an inner product, as long as it curves upwards.

    The caller looks at the curvature along the next direction before it is taken, and stops where
    it is not positive (truncated Newton methods, Steihaug 1983), or where the residual is small.

    Args:
        product: v to A v.
        inner: The inner product in which A is symmetric.
        right: b.

    Attributes:
        residual: b - A v.
        square: Its squared length.
        direction: Where the next iteration goes.
        products: How many were taken.
    """

    def __init__(
        self,
        product: Callable[[Array], Array],
        inner: Callable[[Array, Array], float],
        right: Array,
    ) -> None:
        self._product = product
        self._inner = inner
        self.residual = right.copy()
        self.direction = right.copy()
        self.square = inner(right, right)
        self.products = 0

    def curvature(self) -> tuple[float, float]:
        """The direction's inner product with A times it, and with itself."""
        self._ahead = self._product(self.direction)
        self.products += 1
        return (
            self._inner(self.direction, self._ahead),
            self._inner(self.direction, self.direction),
        )

    def advance(self, curvature: float) -> Array:
        """Take the step along the direction whose curvature was asked for; it is returned."""
        length = self.square / curvature
        step = length * self.direction
        self.residual -= length * self._ahead
        before, self.square = self.square, self._inner(self.residual, self.residual)
        self.direction = self.residual + self.square / before * self.direction
        return step
