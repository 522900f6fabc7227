"""Figures of runs that belong to no study: their curves, pictures, and the trade-off they span."""

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geco_experiments.results.store import config_of, final
from geco_experiments.runtime.errors import SchemaError
from geco_experiments.studies.common.style import COLORS, new_figure, place_legend, styled

__all__ = ["RunFigure", "draw_runs"]

MOST = 24
"""Runs that are drawn one by one; more of them would make the page too large to open."""
SHOWN = 8


class RunFigure(NamedTuple):
    """One figure as SVG, with what stands under it and words for who cannot see it."""

    svg: bytes
    caption: str
    alt: str


def draw_runs(runs: Sequence[xr.Dataset]) -> list[RunFigure]:
    """The trade-off curve of each dataset and model with several tolerances, then each run."""
    figures = []
    groups: dict[tuple[str, str], list[xr.Dataset]] = {}
    for run in runs:
        config = config_of(run)
        if config.objective.name == "geco" and config.objective.constraint == "re":
            groups.setdefault((config.dataset.label, config.model.name), []).append(run)
    for (dataset, model), group in groups.items():
        if len({config_of(run).kappa for run in group}) > 1:
            figures += _trade_off(dataset, model, group)
    for run in runs[:MOST]:
        figures += [*_history(run), *_examples(run)]
    return figures


def _trade_off(dataset: str, model: str, runs: list[xr.Dataset]) -> list[RunFigure]:
    try:
        points = sorted(
            (final(run, "rms_error", "train"), final(run, "kl", "train"), config_of(run).kappa)
            for run in runs
        )
    except SchemaError:
        return []
    figure, (plane, hit) = new_figure(1, 2, width=9.0, height=3.4)
    error, kl, kappa = np.array(points).T
    plane.plot(error, kl, "o-", color=COLORS["geco"], linewidth=1)
    plane.set(title="What an error costs", xlabel="RMS error", ylabel="KL (nats)")
    hit.axhspan(-2, 2, color="#e8f0f7")
    hit.plot(kappa, 100 * (error / kappa - 1), "o", color=COLORS["geco"])
    hit.set(title="Error against the target", xlabel="κ", ylabel="off κ (%)")
    caption = (
        f"{dataset}, {model}: the KL at each RMS error over the training set, and how far each "
        "run ended from the κ that was asked for (band: 2%)."
    )
    return [RunFigure(_svg(figure), caption, "KL over RMS error, and deviation over kappa")]


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
