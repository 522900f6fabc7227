"""Linear algebra that several rooms share."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from geco_theory._typing import Array

__all__ = [
    "covariance_eigenvalues",
    "covariance_spectrum",
    "principal_axes",
    "squared_distances",
    "squarem",
]

# an eigenvalue this far below zero, relative to the largest, is rounding and not indefiniteness
ROUNDING = 1e-8
_SURE = 1e-9  # share of the largest eigenvalue down to which those of a product are exact enough


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


def squarem(
    start: Array, first: Array, second: Array, norm: Callable[[Array], Array], most: float
) -> tuple[Array, Array, Array]:
    r"""Extrapolate a fixed-point iteration in squares (SQUAREM, scheme S3).

    Varadhan and Roland (2008), "Simple and globally convergent methods for accelerating the
    convergence of any EM algorithm": with :math:`r = x_1 - x_0`, :math:`v = x_2 - x_1 - r` and
    :math:`s = |r| / |v|` the next iterate is :math:`x_0 + 2 s r + s^2 v`.

    Args:
        start: (k, c) the iterate x_0.
        first: (k, c) the next one.
        second: (k, c) the one after that.
        norm: Lengths of arrays (k, c): one for all rows, or (k,) one for each.
        most: Largest s; it is at least 1.

    Returns:
        The extrapolated iterate, and s (before it was cut to `most`) and the length of r.
    """
    one = first - start
    change = second - first - one
    length = norm(one)
    ratio = np.maximum(length / np.maximum(norm(change), 1e-300), 1.0)
    cut = np.minimum(ratio, most)[..., None]
    return start + 2 * cut * one + cut**2 * change, ratio, length


def principal_axes(X: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """The axes along which data vary, and their variances.

    Args:
        X: data (n, d).
        weights: (n,) shares of the rows, which sum to 1; equal ones if None.

    Returns:
        Orthonormal axes (d, r) of the covariance (1/n normalisation) with the largest entry of
        each positive, and the variances (r,), descending; r is the rank, at least 1.
    """
    centred, shares, unit = _centred(X, weights)
    n, d = centred.shape
    eps = np.finfo(np.float64).eps
    if n >= d:
        values, vectors = linalg.eigh((centred * shares[:, None]).T @ centred)
        values, vectors = values[::-1].copy(), vectors[:, ::-1].copy()
        # the product has squared the condition: small variances are those of the projections
        small = slice(int(np.sum(values > _SURE * values[0])), d)
        along = shares @ np.square(centred @ vectors[:, small])
        order = np.argsort(-along, kind="stable")
        values[small], vectors[:, small] = along[order], vectors[:, small][:, order]
        kept = np.sqrt(values) > np.sqrt(values[0]) * eps * max(n, d)
    else:
        root = np.sqrt(shares)[:, None] * centred
        vectors, singular, _ = linalg.svd(root.T, full_matrices=False)
        values = singular**2
        kept = singular > singular[0] * eps * max(n, d)
    kept[0] = True
    axes = np.ascontiguousarray(vectors[:, kept])
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    return axes, np.maximum(values[kept], 0.0) * unit * unit


def covariance_eigenvalues(X: Array) -> Array:
    """The eigenvalues of the covariance (1/n normalisation), through the smaller Gram matrix.

    Args:
        X: data (n, d).

    Returns:
        The min(n, d) leading eigenvalues, descending, none negative; the others are zero.
    """
    centred, _, unit = _centred(X, None)
    wide = X.shape[1] > X.shape[0]
    gram = centred @ centred.T if wide else centred.T @ centred
    values = np.linalg.eigvalsh(gram / X.shape[0])[::-1]
    return np.asarray(np.maximum(values, 0.0) * unit * unit)


def _centred(X: Array, weights: Array | None) -> tuple[Array, Array, float]:
    """Centred data in units of their largest entry, the shares of the rows, and that unit."""
    shares = np.full(len(X), 1.0 / len(X)) if weights is None else weights
    centred = X - shares @ X
    unit = float(np.abs(centred).max()) or 1.0
    centred /= unit
    return centred, shares, unit


def squared_distances(left: Array, right: Array) -> Array:
    """Squared distances of all pairs (b, m) by one matrix product, none below zero."""
    # about a common point, because the product cancels what both sides share
    centre = right.mean(axis=0)
    left, right = left - centre, right - centre
    found = left @ (-2.0 * right.T)
    found += np.einsum("ij,ij->i", left, left)[:, None]
    found += np.einsum("ij,ij->i", right, right)[None, :]
    return np.asarray(np.maximum(found, 0.0, out=found))
