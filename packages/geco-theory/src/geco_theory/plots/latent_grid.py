"""Pictures of a latent grid: blur and holes (Figure 1), trajectories (Figure 2, top).

They need matplotlib (``pip install "geco-theory[report]"``); each function returns a new figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from geco_theory._typing import Array
from geco_theory.linalg import principal_axes
from geco_theory.plots.style import BLUE, FAINT, INK, RED, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_latent_geometry", "plot_trajectories"]


def plot_latent_geometry(X: ArrayLike, geometry: xr.Dataset) -> Figure:
    """Draw blur and holes of a two-dimensional latent grid, after Figure 1.

    Args:
        X: the data (n, d); for d > 2 the data space is shown on its first two principal axes.
        geometry: what `latent_geometry` returned, for a grid of two dimensions.

    Returns:
        Four panels: the latent space cut into the posteriors' tiles with the effective number of
        data points; the density ratio with the holes; the data space with the reconstructions of
        all cells; distance from the nearest data point against the effective number.

    Raises:
        ValueError: the grid has one dimension, or the data another width.
        ModuleNotFoundError: matplotlib is not installed.
    """
    data = np.asarray(X, dtype=np.float64)
    shape = tuple(int(s) for s in np.atleast_1d(geometry.attrs["grid_shape"]))
    if len(shape) != 2:
        raise ValueError("`geometry` must be of a grid of two dimensions to be drawn.")
    decoder = geometry["decoder"].values
    if data.ndim != 2 or data.shape[1] != decoder.shape[1]:
        raise ValueError(f"`X` must have {decoder.shape[1]} features, got shape {data.shape}.")
    shown, drawn, names = project(data, decoder)

    z = [geometry[f"latent_{k}"].values.reshape(shape) for k in (1, 2)]
    effective = geometry["effective_points"].values
    ratio = geometry["log_density_ratio"].values
    hole = geometry["hole"].values.astype(bool)
    owner = geometry["owner"].values.reshape(shape)
    threshold = float(geometry.attrs["hole_threshold"])

    picture = figure(10.5, 8.6)
    axes = picture.subplots(2, 2)
    ax = axes[0, 0]
    top = max(2.0, float(effective.max()))
    mesh = ax.pcolormesh(
        z[0], z[1], effective.reshape(shape), cmap="YlGnBu", vmin=1.0, vmax=top, shading="nearest"
    )
    picture.colorbar(mesh, ax=ax, label="effective number of data points")
    _borders(ax, z, owner)
    ax.set_title("Tiles of the latent space and their overlaps")

    ax = axes[0, 1]
    limit = float(np.clip(np.abs(ratio).max(), 0.1, 5.0))
    mesh = ax.pcolormesh(
        z[0], z[1], ratio.reshape(shape), cmap="RdBu", vmin=-limit, vmax=limit, shading="nearest"
    )
    extend = "both" if np.abs(ratio).max() > limit else "neither"
    picture.colorbar(mesh, ax=ax, label="ln marginal posterior / prior (nats)", extend=extend)
    if hole.any() and not hole.all():
        ax.contour(z[0], z[1], hole.reshape(shape).astype(float), levels=[0.5], colors=INK)
    mass = float(geometry["hole_mass"])
    ax.set_title(f"Holes (ratio < {threshold:g}, outlined): prior mass {mass:.3g}")
    for ax in axes[0]:
        ax.set_xlabel("latent coordinate 1 (prior standard deviations)")
        ax.set_ylabel("latent coordinate 2 (prior standard deviations)")
        ax.set_aspect("equal")

    ax = axes[1, 0]
    if hole.any():
        ax.scatter(*drawn[hole].T, s=7, color="black", lw=0, label="reconstructions in holes")
    ax.scatter(
        *drawn[~hole].T, s=22, c=effective[~hole], cmap="YlGnBu", vmin=1.0, vmax=top,
        edgecolors=FAINT, linewidths=0.4, zorder=3, label="reconstructions (colour as above)",
    )  # fmt: skip
    ax.scatter(*shown.T, s=30, color=RED, marker="x", lw=1.4, zorder=4, label="data")
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_title("Data space")
    ax.legend(frameon=False, fontsize=8)

    ax = axes[1, 1]
    nearest = geometry["nearest_distance"].values
    weight = geometry["prior_mass"].values
    size = 4.0 + 60.0 * weight / weight.max()
    ax.scatter(effective[~hole], nearest[~hole], s=size[~hole], color=RED, alpha=0.5, lw=0)
    ax.scatter(effective[hole], nearest[hole], s=size[hole], color="black", alpha=0.6, lw=0)
    typical = float(geometry["typical_distance"])
    ax.axhline(typical, color=FAINT, lw=1)
    ax.annotate(
        "median distance between neighbours in the data", (1.0, typical), fontsize=8, color=INK,
        xycoords=("axes fraction", "data"), ha="right", va="bottom", zorder=5,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip
    ax.set_xlabel("effective number of data points")
    ax.set_ylabel("distance to the nearest data point (data units)")
    ax.set_ylim(bottom=0.0)
    ax.set_title("Where posteriors overlap (size: prior mass; black: holes)")
    picture.suptitle(f"Latent geometry at T = {float(geometry['temperature']):.4g}")
    return picture


def plot_trajectories(X: ArrayLike, solutions: Sequence[xr.Dataset]) -> Figure:
    """Draw the paths of the decoder values to their fixed points (Figure 2, top).

    Args:
        X: the data (n, d); for d > 2 shown on its first two principal axes.
        solutions: from `solve_latent_grid(..., keep_trajectory=True)`, one panel each.

    Returns:
        One panel per solution: paths in grey, fixed points in red, data in blue.

    Raises:
        ValueError: no solution, or one without its trajectory.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if not solutions or any("trajectory" not in s for s in solutions):
        raise ValueError(
            "`solutions` must be solved with keep_trajectory=True, got "
            f"{len(solutions)} of which some have no trajectory."
        )
    data = np.asarray(X, dtype=np.float64)
    picture = figure(3.6 * len(solutions), 3.8)
    axes = picture.subplots(1, len(solutions), squeeze=False)[0]
    for ax, solution in zip(axes, solutions, strict=True):
        values = solution["trajectory"].values
        flat = values.reshape(-1, values.shape[-1])
        shown, drawn, names = project(data, flat)
        paths = drawn.reshape(*values.shape[:2], -1)
        for cell in range(paths.shape[1]):
            ax.plot(*paths[:, cell].T, color=FAINT, lw=0.6, alpha=0.7, zorder=1)
        ax.scatter(*shown.T, s=16, color=BLUE, zorder=2, label="data")
        ax.scatter(*paths[-1].T, s=12, color=RED, zorder=3, label="fixed points")
        ax.set_title(f"T = {float(solution['temperature']):.4g}")
        ax.set_xlabel(names[0])
        ax.set_aspect("equal", adjustable="datalim")
    axes[0].set_ylabel(names[1])
    axes[0].legend(frameon=False, fontsize=8)
    return picture


def project(data: Array, values: Array) -> tuple[Array, Array, tuple[str, str]]:
    """Data and other points in the plane: as they are, or on the data's first principal axes."""
    if data.shape[1] == 1:
        flat = [np.column_stack([v[:, 0], np.zeros(len(v))]) for v in (data, values)]
        return flat[0], flat[1], ("feature 1 (data units)", "")
    if data.shape[1] == 2:
        return data, values, ("feature 1 (data units)", "feature 2 (data units)")
    centre = data.mean(axis=0)
    axes = principal_axes(data)[0][:, :2]
    if axes.shape[1] < 2:  # data on a line: nothing varies across it
        axes = np.column_stack([axes, np.zeros(len(axes))])
    names = ("principal axis 1 (data units)", "principal axis 2 (data units)")
    return (data - centre) @ axes, (values - centre) @ axes, names


def _borders(ax: Any, z: list[Array], owner: NDArray[np.int64]) -> None:
    """Lines between cells of different owners."""
    for axis in (0, 1):
        change = np.diff(owner, axis=axis) != 0
        low = [v[:-1] if axis == 0 else v[:, :-1] for v in z]
        high = [v[1:] if axis == 0 else v[:, 1:] for v in z]
        middle = [(a + b)[change] / 2 for a, b in zip(low, high, strict=True)]
        half = (
            0.5 * float(z[1][0, 1] - z[1][0, 0])
            if axis == 0
            else 0.5 * float(z[0][1, 0] - z[0][0, 0])
        )
        if axis == 0:
            ax.vlines(middle[0], middle[1] - half, middle[1] + half, color=INK, lw=0.6)
        else:
            ax.hlines(middle[1], middle[0] - half, middle[0] + half, color=INK, lw=0.6)
