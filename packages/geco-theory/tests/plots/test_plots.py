import io
import sys

import numpy as np
import pytest
import xarray as xr

from geco_theory.latent_grid.geometry import latent_geometry
from geco_theory.latent_grid.grid import gaussian_grid
from geco_theory.latent_grid.solver import solve_latent_grid
from geco_theory.plots import latent_grid as latent_plots
from geco_theory.plots import phase_diagram as plots

X = np.random.default_rng(3).normal(size=(9, 3)) * [2.0, 1.0, 0.5]
T = np.geomspace(0.1, 4.0, 9)


@pytest.fixture(scope="module")
def path() -> xr.Dataset:
    return xr.Dataset(
        {"distortion": ("temperature", T**0.5), "n_clusters": ("temperature", 9 - np.arange(9))},
        {"temperature": T},
    )


def drawn(picture: object) -> str:
    """The picture as SVG with its words kept as text."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        picture.savefig(buffer, format="svg")  # type: ignore[attr-defined]
    return buffer.getvalue()


def test_phase_diagram_shows_every_kind_of_transition(path: xr.Dataset) -> None:
    kinds = ["birth", "birth", "merge", "split", "stability limit"]
    transitions = xr.Dataset(
        {"kind": ("transition", kinds)},
        {"temperature": ("transition", [3.0, 2.0, 1.0, 0.9, 2.5])},
    )
    picture = plots.plot_phase_diagram(path, transitions, [0.5])
    text = drawn(picture)
    for words in ("birth in the global", "merge on", "split on", "stability limit", "top three"):
        assert text.count(words) == 1
    assert "squared data units" in text
    lines = [line.get_xdata()[0] for line in picture.axes[0].lines if len(line.get_xdata()) == 2]
    assert {3.0, 2.0, 1.0, 0.9, 2.5, 0.5} <= set(lines)


def test_transitions_outside_the_range_are_not_drawn(path: xr.Dataset) -> None:
    transitions = xr.Dataset(
        {"kind": ("transition", ["birth"])}, {"temperature": ("transition", [100.0])}
    )
    assert "birth" not in drawn(plots.plot_phase_diagram(path, transitions))


def test_tree_rate_and_spectral_pictures() -> None:
    tree = xr.Dataset(
        {
            "position": (("temperature", "cluster"), [[0.0, np.nan], [-1.0, 1.0]]),
            "mass": (("temperature", "cluster"), [[1.0, np.nan], [0.4, 0.6]]),
        },
        {"temperature": [2.0, 1.0]},
    )
    picture = plots.plot_cluster_tree(tree)
    assert len(picture.axes[0].collections[0].get_offsets()) == 3
    assert "principal axis" in drawn(picture)

    kappa = np.linspace(0.1, 1.0, 5)
    curve = xr.Dataset(
        {
            "rate": ("kappa", [np.nan, 3.0, 2.0, 1.0, 0.0]),
            "rate_lower": ("kappa", [2.5, 2.4, 1.9, 1.0, 0.0]),
            "linear_rate": ("kappa", [9.0, 4.0, 2.0, 1.0, 0.0]),
        },
        {"kappa": kappa},
    )
    text = drawn(plots.plot_rate_distortion(curve, curve, samples=50))
    assert "ln n = 3.91" in text
    assert "kappa (data units)" in text

    heat = T[:3]
    comparison = xr.Dataset(
        {
            "agreement": (("temperature", "rival"), np.full((3, 3), 0.5)),
            "accuracy": (("temperature", "clustering"), np.full((3, 4), 0.5)),
            "n_clusters": ("temperature", [3, 2, 1]),
            "spectral_gap": ("temperature", [0.1, 0.2, 0.3]),
        },
        {
            "temperature": heat,
            "rival": ["spectral", "kmeans", "gaussian_mixture"],
            "clustering": ["fixed_points", "spectral", "kmeans", "gaussian_mixture"],
        },
    )
    text = drawn(plots.plot_spectral_comparison(comparison))
    assert "adjusted Rand index" in text
    assert "spectral gap" in text
    without = comparison.drop_vars(["accuracy", "clustering"])
    assert len(plots.plot_spectral_comparison(without).axes) == 3


@pytest.mark.parametrize("width", [1, 2, 3])
def test_latent_pictures_in_any_number_of_features(width: int) -> None:
    grid = gaussian_grid(7)
    data = X[:, :width]
    solution = solve_latent_grid(data, grid, temperature=0.3, max_iter=3, keep_trajectory=True)
    text = drawn(latent_plots.plot_latent_geometry(data, latent_geometry(data, solution)))
    assert "prior mass" in text
    assert "effective number of data points" in text
    picture = latent_plots.plot_trajectories(data, [solution, solution])
    assert len(picture.axes) == 2
    assert len(picture.axes[0].lines) == grid.cells
    ends = picture.axes[0].collections[1].get_offsets()
    if width == 2:
        np.testing.assert_allclose(ends, solution.decoder.values)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    line = gaussian_grid(5, dimensions=1)
    solution = solve_latent_grid(X, line, temperature=1.0)
    geometry = latent_geometry(X, solution)
    with pytest.raises(ValueError, match="two dimensions"):
        latent_plots.plot_latent_geometry(X, geometry)
    with pytest.raises(ValueError, match="keep_trajectory=True"):
        latent_plots.plot_trajectories(X, [solution])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \"geco-theory\[report\]\""):
        plots.figure(1.0, 1.0)
