"""The covariance of a data matrix: its eigenvalues and its first axis."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["covariance_eigenvalues", "first_axis"]

Array = NDArray[np.float64]


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
