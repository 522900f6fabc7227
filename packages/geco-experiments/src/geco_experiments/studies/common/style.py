"""The look that all figures share: colours by objective, labels with units, one size of type.

The page shows each figure at the same scale, so that type of equal size here is of equal size
there: no figure is wider than `WIDTH`, and text has the size `TEXT`, notes inside panels `SMALL`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from geco_experiments.runtime.atomic import replacing

__all__ = [
    "BASELINES",
    "COLORS",
    "LABELS",
    "MARKERS",
    "MODELS",
    "SMALL",
    "TEXT",
    "WIDTH",
    "new_figure",
    "place_legend",
    "place_legend_below",
    "save_figure",
    "styled",
]

WIDTH = 10.8  # inches
TEXT, SMALL = 9.5, 8.0  # points

# Okabe and Ito's colours, which stay apart for colour-blind readers; ELBO green and GECO blue as
# in the paper's Figure 5
COLORS = {
    "geco": "#0072B2",
    "elbo": "#009E73",
    "annealed-elbo": "#E69F00",
    "sigma-vae": "#7B4FA3",
    "bound": "#555555",
    "linear": "#CC79A7",
    "kappa": "#D55E00",
    "data": "#56B4E9",
}
MARKERS = {"geco": "o", "elbo": "s", "annealed-elbo": "^", "sigma-vae": "D"}
BASELINES = ("elbo", "annealed-elbo", "sigma-vae")
MODELS = {
    "linear-vae": "linear VAE",
    "mlp-vae": "MLP VAE",
    "conv-vae": "VAE",
    "nvp-vae": "VAE+NVP",
    "conv-draw": "ConvDraw",
}
LABELS = {
    "geco": "GECO",
    "elbo": "ELBO",
    "annealed-elbo": "hand-annealed β",
    "sigma-vae": "σ-VAE",
    "bound": "no model below: F* of the data [derived, D9]",
    "linear": "best linear VAE [derived, D7]",
}

# above these the data of axes are drawn as pixels, their labels stay text
MOST_PATHS, MOST_POINTS = 300, 20_000
_STYLE: dict[Any, Any] = {
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": TEXT,
    "figure.titlesize": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e9ef",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "path.simplify_threshold": 0.5,  # of a pixel: smaller files, no visible change
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "svg.hashsalt": "geco",  # the same numbers give the same file
    "svg.fonttype": "path",
    "figure.dpi": 110,
    "savefig.dpi": 110,
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style within a block only; the user's own settings come back after it."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = 3.4, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure that belongs to no global state, with its axes in reading order.

    One that is asked to be wider than `WIDTH` is of that width.
    """
    with styled():
        figure = Figure(figsize=(min(width, WIDTH), height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.ravel())


def place_legend(axes: Axes, **options: Any) -> None:
    """A legend, if there is anything to name."""
    _legend(axes, axes, options)


def place_legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend for all panels, under them, with what one of them names."""
    _legend(figure, axes, {"loc": "outside lower center", "ncols": columns})


def _legend(place: Axes | Figure, axes: Axes, options: dict[str, Any]) -> None:
    """Each name once, whatever draws several lines under it."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        unique = dict(zip(labels, handles, strict=True))
        look = {"frameon": False, "fontsize": SMALL, **options}
        place.legend(list(unique.values()), list(unique), **look)


def _rasterise(axes: Axes) -> None:
    """Draw the data of crowded axes as pixels: thousands of paths make a file of megabytes."""
    collections: list[Any] = list(axes.collections)
    lines: list[Any] = list(axes.lines)
    paths = sum(max(len(one.get_offsets()), len(one.get_paths())) for one in collections)
    points = sum(len(line.get_xdata(orig=False)) for line in lines)
    if paths + len(axes.patches) + len(lines) > MOST_PATHS or points > MOST_POINTS:
        for artist in (*collections, *lines, *axes.patches):
            artist.set_rasterized(True)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as SVG, whole or not at all; dense artists inside are rasterised."""
    for axes in figure.axes:
        _rasterise(axes)
    with replacing(path) as part, styled():
        FigureCanvasSVG(figure)
        figure.savefig(part, format="svg", metadata={"Date": None})
    return path
