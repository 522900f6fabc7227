"""Pictures of a phase diagram; they need matplotlib (``pip install "geco-theory[report]"``).

Every function draws into a new `matplotlib.figure.Figure` and returns it. Nothing global is
touched: no pyplot, no style, no backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geco_theory._typing import Array
from geco_theory.plots.style import AMBER, BLUE, FAINT, GREEN, INK, RED, figure, temperature_axis
from geco_theory.transitions.detector import second_derivative

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "plot_cluster_tree",
    "plot_phase_diagram",
    "plot_rate_distortion",
    "plot_spectral_comparison",
]

KINDS = {
    "birth": ("birth in the global optimum", RED, "-"),
    "merge": ("merge on heating", GREEN, "-"),
    "split": ("split on cooling", AMBER, "-"),
    "stability limit": ("stability limit of one value (D2)", INK, "--"),
}


def plot_phase_diagram(
    path: xr.Dataset, transitions: xr.Dataset | None = None, detected: ArrayLike = ()
) -> Figure:
    r"""Draw the reconstruction error, its second derivative and the cluster count (Figure 2).

    Args:
        path: `PhaseTransitions.path_`.
        transitions: `PhaseTransitions.transitions_`, drawn as vertical lines.
        detected: temperatures that the paper's detector found: the highest local maxima of the
            absolute value of the second derivative, so troughs as well as peaks.

    Returns:
        Three panels over temperature.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    ordered = path.sortby("temperature")
    heat = ordered["temperature"].values
    error = ordered["distortion"].values
    picture = figure(8.6, 7.6)
    axes = picture.subplots(3, 1, sharex=True, height_ratios=[3, 2, 2])
    axes[0].plot(heat, error, color=BLUE, marker=".", ms=4)
    axes[0].set_ylabel("reconstruction error RE\n(squared data units)")
    axes[0].set_ylim(bottom=0.0)
    axes[0].set_title("Reconstruction error and critical temperatures")
    axes[1].plot(heat, second_derivative(heat, error), color=BLUE, marker=".", ms=4)
    axes[1].axhline(0.0, color=FAINT, lw=0.8)
    axes[1].set_ylabel("second derivative of RE\nin beta (sigma = 1)")
    axes[2].step(heat, ordered["n_clusters"].values, where="mid", color=BLUE)
    axes[2].set_yscale("log")
    axes[2].set_ylabel("number of\ndecoder values")
    temperature_axis(axes[2], float(heat[0]), float(heat[-1]))
    for ax in axes:
        _critical_lines(ax, transitions, heat, np.asarray(detected, dtype=np.float64))
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        axes[0].legend(handles, labels, frameon=False, fontsize=8, loc="upper left")
    return picture


def plot_cluster_tree(tree: xr.Dataset) -> Figure:
    """Draw the decoder values over temperature, on the data's first principal axis.

    Args:
        tree: ``position`` and ``mass`` over (temperature, cluster), NaN where there is none.

    Returns:
        One panel: a point per decoder value, its area growing with its prior mass.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    picture = figure(8.6, 4.6)
    ax = picture.subplots()
    heat = np.broadcast_to(tree["temperature"].values[:, None], tree["position"].shape)
    place, mass = tree["position"].values, tree["mass"].values
    there = np.isfinite(place)
    ax.scatter(
        heat[there], place[there], s=1.0 + 80.0 * mass[there], color=BLUE, alpha=0.55, lw=0,
        rasterized=True,
    )  # fmt: skip
    temperature_axis(ax, float(np.nanmin(heat)), float(np.nanmax(heat)))
    ax.set_ylabel("decoder values on the first\nprincipal axis (data units)")
    ax.set_title("Decoder values over temperature (area: share of the prior's mass)")
    return picture


def plot_rate_distortion(
    curve: xr.Dataset, linear: xr.Dataset | None = None, *, samples: int | None = None
) -> Figure:
    """Draw the smallest rate of any model against its error, beside the linear optimum.

    Args:
        curve: from `rate_distortion_curve`.
        linear: ``linear_rate`` over ``kappa``.
        samples: the number of samples n; draws ln n, the cost of one value per sample.

    Returns:
        One panel; no model lies in the shaded region on these data (D9).

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    picture = figure(8.6, 4.8)
    ax = picture.subplots()
    kappa, rate = curve["kappa"].values, curve["rate"].values
    known = np.isfinite(rate)
    ax.plot(kappa[known], rate[known], color=BLUE, label="best model of these samples (D6, D9)")
    ax.fill_between(kappa, 0.0, curve["rate_lower"].values, color=BLUE, alpha=0.12, lw=0)
    top = float(np.nanmax(rate[known])) if known.any() else 1.0
    if linear is not None:
        ax.plot(
            linear["kappa"].values, linear["linear_rate"].values, color=RED, ls="--",
            label="best linear model (D7)",
        )  # fmt: skip
    if samples is not None:
        ax.axhline(np.log(samples), color=FAINT, lw=1, label=f"ln n = {np.log(samples):.3g}")
        top = max(top, float(np.log(samples)))
    ax.set_ylim(0.0, 1.6 * top)
    ax.set_xlim(left=0.0)
    ax.set_xlabel("root-mean-square error per element, kappa (data units)")
    ax.set_ylabel("rate, KL (nats)")
    estimated = "search" in curve["rate_lower"].attrs
    shaded = "estimated to be out of reach" if estimated else "out of reach"
    ax.set_title(f"Rate and distortion (shaded: {shaded} of every model)")
    ax.legend(frameon=False, fontsize=8)
    return picture


def plot_spectral_comparison(comparison: xr.Dataset) -> Figure:
    """Draw what `compare_spectral_clustering` found.

    Args:
        comparison: its result.

    Returns:
        Two or three panels over temperature: the agreement at equal numbers of clusters, the
        agreement with the given labels (if any), the number of clusters beside the spectral gap.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    names = {
        "spectral": ("spectral clustering", RED), "kmeans": ("k-means", GREEN),
        "gaussian_mixture": ("Gaussian mixture", AMBER), "fixed_points": ("fixed points", BLUE),
    }  # fmt: skip
    heat = comparison["temperature"].values
    panels = ["agreement"] + (["accuracy"] if "accuracy" in comparison else [])
    picture = figure(8.6, 2.6 * (len(panels) + 1))
    axes = picture.subplots(len(panels) + 1, 1, sharex=True)
    titles = {
        "agreement": "Agreement with the fixed points at equal numbers of clusters",
        "accuracy": "Agreement with the given labels",
    }
    for ax, panel in zip(axes, panels, strict=False):
        dimension = "rival" if panel == "agreement" else "clustering"
        for name in comparison[dimension].values:
            label, colour = names[str(name)]
            values = comparison[panel].sel({dimension: name}).values
            ax.plot(heat, values, color=colour, marker=".", ms=4, label=label)
        ax.set_ylim(-0.08, 1.05)
        ax.set_ylabel("adjusted Rand index")
        ax.set_title(titles[panel])
        ax.legend(frameon=False, fontsize=8)
    ax = axes[-1]
    ax.step(heat, comparison["n_clusters"].values, where="mid", color=BLUE)
    ax.set_yscale("log")
    ax.set_ylabel("number of clusters", color=BLUE)
    temperature_axis(ax, float(heat.min()), float(heat.max()))
    gap = ax.twinx()
    gap.plot(heat, comparison["spectral_gap"].values, color=RED, marker=".", ms=4)
    gap.set_ylabel("spectral gap at that number", color=RED)
    gap.set_ylim(bottom=0.0)
    return picture


def _critical_lines(ax: Any, transitions: xr.Dataset | None, heat: Array, detected: Array) -> None:
    """Vertical lines at the transitions within the drawn range, one legend entry a kind."""
    low, high = float(heat.min()) * 0.95, float(heat.max()) * 1.05
    if transitions is not None and transitions.sizes.get("transition", 0):
        kinds = [str(k) for k in transitions["kind"].values]
        places = transitions["temperature"].values
        for kind in dict.fromkeys(kinds):
            label, colour, style = KINDS.get(kind, (kind, FAINT, "-"))
            own = [t for t, k in zip(places, kinds, strict=True) if k == kind and low < t < high]
            for i, place in enumerate(own):
                ax.axvline(
                    place, color=colour, ls=style, lw=0.9 if len(own) < 20 else 0.4, alpha=0.7,
                    zorder=0, label=label if i == 0 else None,
                )  # fmt: skip
    for i, place in enumerate(detected):
        ax.axvline(
            place, color=FAINT, ls=":", lw=2.0, zorder=0,
            label="paper's detector: largest |second derivative| (top three)" if i == 0 else None,
        )  # fmt: skip
