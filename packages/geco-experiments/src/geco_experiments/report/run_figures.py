"""Figures of runs that belong to no study: their curves, pictures, and the trade-off they span."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geco_experiments.evaluation.bounds import kept_limits, least_kl
from geco_experiments.results.store import config_of
from geco_experiments.results.trade_off import curve
from geco_experiments.runtime.errors import GecoError
from geco_experiments.studies.common.style import (
    COLORS,
    LABELS,
    new_figure,
    place_legend,
    styled,
)

__all__ = ["RunFigure", "draw_runs"]

MOST = 24
"""Runs that are drawn one by one; more of them would make the page too large to open."""
SHOWN = 8


class RunFigure(NamedTuple):
    """One figure as SVG, with what stands under it and words for who cannot see it."""

    svg: bytes
    caption: str
    alt: str


def draw_runs(runs: Sequence[xr.Dataset], limits: Path | None = None) -> list[RunFigure]:
    """The trade-off curve of each dataset and model with several tolerances, then each run.

    Args:
        runs: the runs, opened.
        limits: a folder where the limits of their datasets may have been kept.
    """
    figures = []
    groups: dict[tuple[str, str, str], list[xr.Dataset]] = {}
    for run in runs:
        config = config_of(run)
        if config.objective.name == "geco" and config.objective.constraint == "re":
            key = (config.dataset.label, config.model.name, config.objective_label)
            groups.setdefault(key, []).append(run)
    for group in groups.values():
        figures += _trade_off(group, limits)
    for run in runs[:MOST]:
        figures += [*_history(run), *_examples(run)]
    return figures


def _trade_off(runs: list[xr.Dataset], folder: Path | None) -> list[RunFigure]:
    try:
        line = curve(runs)
    except GecoError:  # runs of an earlier release, or several with the same tolerance
        return []
    if line.sizes["kappa"] < 2 or not {"rms_error", "rate", "price", "active_latents"} <= set(
        line
    ):
        return []
    config = config_of(runs[0])
    limits = None if folder is None else kept_limits(config.dataset, folder)
    figure, (plane, hit, price, active) = new_figure(2, 2, width=9.0, height=6.0)
    train = line.sel(split="train")
    if limits is not None:
        _draw_limits(plane, limits, train)
    style: dict[str, Any] = {"marker": "o", "color": COLORS["geco"], "linewidth": 1}
    for seed in line["seed"].values:
        one = train.sel(seed=seed)
        one = one.isel(kappa=np.flatnonzero(np.isfinite(one["rate"].values)))
        plane.plot(one["rms_error"], one["rate"], **style)
        hit.plot(one["kappa"], 100 * (one["rms_error"] / one["kappa"] - 1), **style)
        price.plot(one["kappa"], one["price"], **style)
        active.plot(one["kappa"], one["active_latents"], **style)
    plane.set(title="What an error costs", xlabel="RMS error", ylabel="KL (nats)")
    hit.axhspan(-2, 2, color="#e8f0f7")
    hit.set(title="Error against the target", xlabel="κ", ylabel="off κ (%)")
    price.set(title="Price of a smaller error", xlabel="κ", ylabel="−dKL / d ln κ (nats)")
    active.set(title="Latents in use", xlabel="κ", ylabel="latent dimensions")
    active.set_ylim(bottom=0)
    place_legend(plane)
    caption = (
        f"{line.attrs['dataset']}, {line.attrs['model']}, "
        + ("one run over a range of κ" if len(runs) == 1 else "one run for each κ")
        + ": the KL at each RMS error over the training set; how far the error is from the κ that "
        "was asked for (band: 2%); 2λκ², what an error smaller by a factor of e costs at that "
        "price, so 2.3 times it the next digit; and the latents in use."
    )
    return [
        RunFigure(_svg(figure), caption, "KL over RMS error; deviation, price, latents over κ")
    ]


def _draw_limits(plane: Any, limits: xr.Dataset, train: xr.Dataset) -> None:
    """The best linear VAE (D7), and the region where no model can be (D9)."""
    errors = train["rms_error"].values
    low, high = 0.9 * float(np.nanmin(errors)), 1.1 * float(np.nanmax(errors))
    top = 1.25 * float(np.nanmax(train["rate"].values))
    place = np.geomspace(low, high, 60)
    bound = least_kl(limits, place)
    plane.fill_between(place, 0, bound, color="#d9dce2", linewidth=0)
    plane.plot(place, bound, color=COLORS["bound"], linewidth=1, label=LABELS["bound"])
    plane.plot(
        limits["rms"],
        limits["linear_kl"],
        color=COLORS["linear"],
        linewidth=1.2,
        linestyle=(0, (4, 2)),
        label=LABELS["linear"],
    )
    plane.set(xlim=(low, high), ylim=(0, top))


def _history(run: xr.Dataset) -> list[RunFigure]:
    if not {"rms_error", "kl", "beta"} <= set(run.data_vars):
        return []
    config = config_of(run)
    figure, (error, kl, beta) = new_figure(1, 3, width=10.2, height=2.9)
    step = run["step"].values
    for axes, name in ((error, "rms_error"), (kl, "kl"), (beta, "beta")):
        if np.isfinite(run[name].values).any():
            axes.plot(step, run[name], color=COLORS["geco"], linewidth=1)
        axes.set_xlabel("step")
    if config.objective.constraint == "re" and math.isfinite(config.kappa):
        error.axhline(config.kappa, color=COLORS["kappa"], linestyle=":", label="κ")
        place_legend(error)
    error.set(title="Reconstruction", ylabel="RMS error")
    kl.set(title="Compression", ylabel="KL (nats)")
    beta.set(title="Equivalent beta", ylabel="β")
    for axes in (error, beta):
        if all(value > 0 for value in axes.get_ylim()):
            axes.set_yscale("log")
    caption = f"{run.attrs.get('name', config.name)}: single batches over the training steps."
    return [RunFigure(_svg(figure), caption, "RMS error, KL and beta over the steps")]


def _examples(run: xr.Dataset) -> list[RunFigure]:
    names = [name for name in ("inputs", "reconstructions", "samples") if name in run]
    if not {"inputs", "reconstructions"} <= set(names):
        return []
    parts = [run[name].values if name == "samples" else run[name].values[-1] for name in names]
    count = min(SHOWN, *(len(part) for part in parts))
    channels, rows, columns = parts[0].shape[1:]
    flat = rows < 4 or columns < 4 or channels not in (1, 3)
    figure, panels = new_figure(
        len(names), count, width=1.05 * count + 0.4, height=1.15 * len(names)
    )
    axes = np.reshape(np.array(panels, dtype=object), (len(names), count))
    for line, (name, part) in enumerate(zip(names, parts, strict=True)):
        for column in range(count):
            place: Any = axes[line, column]
            place.grid(visible=False)
            if flat:
                place.plot(part[column].reshape(-1, columns).T / 255, linewidth=0.8)
                place.set_ylim(-0.05, 1.05)
            else:
                place.imshow(_picture(part[column]), vmin=0, vmax=255, cmap="gray")
            place.set_xticks([])
            place.set_yticks([])
        axes[line, 0].set_ylabel(name)
    caption = "Held-out examples, their reconstructions, and samples of the model."
    return [RunFigure(_svg(figure), caption, "Rows of examples, reconstructions and samples")]


def _picture(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return array[0] if len(array) == 1 else array[:3].transpose(1, 2, 0)


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with styled():
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
