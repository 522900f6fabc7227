"""An empty figure, the colours of the lines, an axis over temperatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#222222"
FAINT = "#9a9a9a"
BLUE = "#1f5fa8"
RED = "#c0392b"
GREEN = "#2d7d46"
AMBER = "#b8860b"


def figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure as NewFigure
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            'pictures need matplotlib, which is not installed: pip install "geco-theory[report]"'
        ) from missing
    return NewFigure(figsize=(width, height), layout="constrained")


def temperature_axis(ax: Any, low: float, high: float) -> None:
    """A logarithmic axis over temperatures, with plain numbers that do not collide."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_xscale("log")
    wide = high > 100.0 * low
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("temperature T = beta sigma^2 (squared data units)")
