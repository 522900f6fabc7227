"""One self-contained HTML page on the phase diagram of a dataset."""

import base64
import html
import io
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from geco_theory.plots.phase_diagram import (
    plot_cluster_tree,
    plot_phase_diagram,
    plot_rate_distortion,
)
from geco_theory.report.collecting import part

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["render_report"]

TRANSITION_ROWS = 30
ADVICE = (
    "<p>The floor is what no model pays less than on these samples (D9); the forecast is what a "
    "code of local linear parts attains on samples held out (D10), with the number of latents, "
    "the beta and the multiplier that go with it; the linear VAE is the ceiling (D7). The gap is "
    "the forecast minus the same on the samples seen: where it is large, a model remembers. The "
    "rule was fixed while MNIST and Fashion-MNIST were looked at, and has no setting to fit.</p>"
)


def render_report(results: xr.Dataset) -> str:
    """Render the page.

    Args:
        results: what `geco_theory.report.collect` returned (or a saved one, read again).

    Returns:
        HTML that needs no other file and no network.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    path, transitions = part(results, "path"), part(results, "transition")
    curve, advice, tree = (part(results, name) for name in ("curve", "advice", "tree"))
    free = results.attrs["masses"] == "free"
    sections = []
    if path is not None:
        picture = plot_phase_diagram(path, transitions, results.attrs.get("detected", ()))
        change = (
            "The one-value solution ends at the highest birth; RE and its rate have kinks at "
            "births, no jumps (D9)."
            if free
            else "One branch of equal masses: RE can jump where tiles merge, and another branch "
            "can have another RE at the same temperature (D3)."
        )
        caption = (
            f"{change} The dotted lines are the paper's detector: the three highest local "
            "maxima of the absolute value of the second derivative, troughs like peaks."
        )
        sections.append(_section("Reconstruction error over temperature", picture, caption))
    if tree is not None:
        caption = "Read from right to left: one value at the mean, then more as T falls."
        sections.append(_section("Cluster tree", plot_cluster_tree(tree), caption))
    if curve is not None:
        picture = plot_rate_distortion(curve, curve, samples=int(results.attrs["n_samples"]))
        caption = (
            "The bound holds for every VAE on these samples, not on unseen ones: with enough "
            "capacity one value per sample costs ln n."
        )
        search = curve["rate_lower"].attrs.get("search")
        if search:
            caption += f" Here it is {search}."
        sections.append(_section("Rate and distortion", picture, caption))
    if not free:
        sections.append(
            "<h2>Rate and distortion</h2><p>Not shown for equal masses: the branch is a local "
            "minimum without a certificate, so it bounds no model, and there is no advice on "
            "kappa. Analyse with free masses for both.</p>"
        )
    if advice is not None:
        sections.append(f"<h2>Which tolerance to ask for</h2>{ADVICE}{_advice_table(advice)}")
    if transitions is not None and transitions.sizes.get("transition", 0):
        sections.append(f"<h2>Transitions</h2>{_transition_table(transitions)}")
    warnings = [f'<p class="note">{html.escape(note)}</p>' for note in _notes(results)]
    if not results.attrs["complete"]:
        warnings.insert(
            0,
            '<p class="warning">This analysis was interrupted: it holds only the temperatures '
            "that were solved before.</p>",
        )
    page = Template(files("geco_theory.report").joinpath("page.html").read_text(encoding="utf-8"))
    return page.substitute(
        name=html.escape(str(results.attrs["source"])),
        samples=results.attrs["n_samples"],
        features=results.attrs["n_features"],
        warnings="\n".join(warnings),
        facts=_facts(results, path),
        sections="\n".join(sections),
        version=html.escape(str(results.attrs["geco_theory_version"])),
    )


def _notes(results: xr.Dataset) -> list[str]:
    """The notes on how the file was read."""
    return [note for note in str(results.attrs.get("notes", "")).split("\n") if note]


def _facts(results: xr.Dataset, path: xr.Dataset | None) -> str:
    """The table of what is known about the whole dataset."""
    rows = [("Total variance (squared data units)", _number(results.attrs["total_variance"]))]
    for key, words in (
        ("stability_temperature", "Stability limit of the one-value solution: top covariance "
         "eigenvalue (D2)"),
        ("top_critical_temperature", "Highest critical temperature"),
        ("n_critical", "Critical temperatures found"),
    ):  # fmt: skip
        if key in results.attrs:
            rows.append((words, _number(results.attrs[key])))
    if path is not None:
        heat = path["temperature"].values
        rows.append(("Temperatures solved", f"{heat.size}, {_number(heat.min())} to "
                     f"{_number(heat.max())}"))  # fmt: skip
        certificate = path["certificate"].values
        if np.isfinite(certificate).any():
            worst = float(np.nanmax(certificate))
            search = path["certificate"].attrs.get("search")
            meaning = search or "F lies at most T ln S above the optimum"
            rows.append((f"Largest certificate ln S: {meaning}", _number(max(worst, 0.0))))
        missed = int((~path["converged"].values.astype(bool)).sum())
        if missed:
            rows.append(("Temperatures where the tolerance was not reached", str(missed)))
    body = "".join(
        f'<tr><td class="words">{html.escape(words)}</td><td>{value}</td></tr>'
        for words, value in rows
    )
    return f"<table>{body}</table>"


def _section(title: str, picture: "Figure", caption: str) -> str:
    """A heading with one picture, embedded as an image of its own."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f"<h2>{html.escape(title)}</h2><figure>"
        f'<img alt="{html.escape(title)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _advice_table(advice: xr.Dataset) -> str:
    """One row per tolerance, its sentence below the numbers."""
    columns = [
        ("kappa", "kappa"),
        ("explained_variance", "variance kept"),
        ("smallest_rate", "floor: nats"),
        ("forecast", "forecast: nats"),
        ("linear_rate", "linear VAE: nats"),
        ("latents", "latents"),
        ("forecast_beta", "beta"),
        ("forecast_multiplier", "multiplier"),
        ("gap", "gap: nats"),
        ("active_dimensions", "linear: dimensions"),
        ("linear_multiplier", "linear: multiplier"),
        ("temperature", "floor: beta"),
        ("n_clusters", "values"),
        ("critical_below", "critical T below"),
        ("critical_above", "critical T above"),
    ]
    rows = []
    for i in range(advice.sizes["kappa"]):
        cells = []
        for name, _ in columns:
            value = float(advice[name].values[i])
            text = _number(value)
            if name == "smallest_rate" and not bool(advice["exact"].values[i]):
                text = f"&ge; {text}"
            if name == "n_clusters" and value < 0:
                text = "&ndash;"
            cells.append(text)
        rows.append(cells)
    sentences = "".join(f"<li>{html.escape(str(s))}</li>" for s in advice["sentence"].values)
    table = _table([words for _, words in columns], rows)
    return f"{table}<ul>{sentences}</ul>"


def _transition_table(transitions: xr.Dataset) -> str:
    """The highest transitions."""
    ordered = transitions.sortby("temperature", ascending=False)
    count = ordered.sizes["transition"]
    shown = min(count, TRANSITION_ROWS)
    rows = [
        [
            _number(float(ordered["temperature"].values[i])),
            html.escape(str(ordered["kind"].values[i])),
            "no" if ordered["continuous"].values[i] else "yes",
            _number(float(ordered["distance"].values[i])),
            _number(float(ordered["size"].values[i])),
        ]
        for i in range(shown)
    ]
    table = _table(
        ["T", "kind", "with a jump", "distance (data units)",
         "share of the samples"],
        rows,
    )  # fmt: skip
    rest = "" if shown == count else f'<p class="note">The highest {shown} of {count}.</p>'
    return table + rest


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of ready cells."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _number(value: float) -> str:
    """Four digits; a dash for what is not known."""
    number = float(value)
    return f"{number:.4g}" if np.isfinite(number) else "&ndash;"
