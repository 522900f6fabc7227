"""The covariance of a data matrix: its eigenvalues and its first axis."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geco_theory._typing import Array

__all__ = ["covariance_eigenvalues", "covariance_spectrum", "first_axis", "squared_distances"]

# an eigenvalue this far below zero, relative to the largest, is rounding and not indefiniteness
ROUNDING = 1e-8


def covariance_spectrum(covariance: ArrayLike) -> NDArray[np.float64]:
    r"""The eigenvalues of a covariance matrix, descending, rounding below zero removed.

    Args:
        covariance: a covariance matrix (d, d), or its eigenvalues (d,) in any order.

    Returns:
        The eigenvalues (d,), float64, descending, none negative.

    Raises:
        TypeError: `covariance` is not an array of real numbers.
        ValueError: it has another shape, is empty, not finite, not symmetric, or has an
            eigenvalue below zero by more than rounding.
    """
    given = np.asarray(covariance)
    if given.dtype.kind not in "fiub":
        raise TypeError(
            f"`covariance` must be an array of real numbers, got dtype {given.dtype}; "
            "pass a matrix (d, d) or its eigenvalues (d,)."
        )
    values: NDArray[np.float64] = given.astype(np.float64)
    square = values.ndim == 2 and values.shape[0] == values.shape[1]
    if values.size == 0 or not (values.ndim == 1 or square):
        raise ValueError(
            f"`covariance` must be a square matrix (d, d) or its eigenvalues (d,), "
            f"got shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "`covariance` must be finite, got NaN or infinite entries; clean the data first."
        )
    size = float(np.abs(values).max())
    if values.ndim == 2:
        if float(np.abs(values - values.T).max()) > ROUNDING * size:
            raise ValueError(
                "`covariance` must be symmetric, got a matrix that differs from its transpose; "
                "pass numpy.cov(X.T, bias=True), or the eigenvalues."
            )
        # LAPACK is only safe inside the normal range of floats
        unit = size or 1.0
        values = np.asarray(np.linalg.eigvalsh(values / unit) * unit, dtype=np.float64)
    values = np.sort(values)[::-1]
    if float(values[-1]) < -ROUNDING * max(float(values[0]), 0.0):
        raise ValueError(
            f"`covariance` must be positive semidefinite, got an eigenvalue of "
            f"{float(values[-1]):.6g}; pass a covariance, or its eigenvalues."
        )
    return np.maximum(values, 0.0)


def covariance_eigenvalues(X: Array) -> Array:
    """The eigenvalues of the covariance (1/n normalisation), through the smaller Gram matrix.

    Args:
        X: data (n, d).

    Returns:
        The min(n, d) leading eigenvalues, descending, none negative; the others are zero.
    """
    small, unit = _gram(X)
    values = np.linalg.eigvalsh(small)[::-1] * unit * unit
    return np.asarray(np.maximum(values, 0.0))


def first_axis(X: Array) -> Array:
    """The unit vector (d,) of largest variance, its largest entry positive."""
    small, _ = _gram(X)
    vector = np.linalg.eigh(small)[1][:, -1]
    axis = vector if X.shape[1] <= X.shape[0] else (X - X.mean(axis=0)).T @ vector
    axis = axis / (np.linalg.norm(axis) or 1.0)
    return np.asarray(axis * (np.sign(axis[np.abs(axis).argmax()]) or 1.0))


def _gram(X: Array) -> tuple[Array, float]:
    """The smaller Gram matrix of the centred data over n, in units of their largest entry."""
    centred = X - X.mean(axis=0)
    unit = float(np.abs(centred).max()) or 1.0
    centred /= unit
    wide = X.shape[1] > X.shape[0]
    gram = centred @ centred.T if wide else centred.T @ centred
    return gram / X.shape[0], unit


def squared_distances(left: Array, right: Array) -> Array:
    """Squared distances of all pairs (b, m) by one matrix product, none below zero."""
    # about a common point, because the product cancels what both sides share
    centre = right.mean(axis=0)
    left, right = left - centre, right - centre
    found = left @ (-2.0 * right.T)
    found += np.einsum("ij,ij->i", left, left)[:, None]
    found += np.einsum("ij,ij->i", right, right)[None, :]
    return np.asarray(np.maximum(found, 0.0, out=found))
