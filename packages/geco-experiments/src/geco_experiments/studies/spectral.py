"""The spectral link: do the fixed points find the clusters of spectral clustering?"""

import math
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.ticker import FormatStrFormatter, NullFormatter
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_blobs, make_circles, make_moons

from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted, ranging
from geco_experiments.studies.common.final_values import spread
from geco_experiments.studies.common.profiles import Profile
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.style import COLORS, new_figure, place_legend_below
from geco_experiments.studies.common.verdicts import by_share
from geco_theory import PhaseTransitions, compare_spectral_clustering

__all__ = ["SpectralLink", "widest_plateau"]

AGREE = 0.9
MOST = 20  # clusters; beyond them partitions are not compared
SIZES = {"smoke": 60, "laptop": 150, "paper": 300}
STEPS = {"smoke": 12, "laptop": 30, "paper": 60}
SAMPLES = {"smoke": 1, "laptop": 3, "paper": 5}
# six standard deviations apart, so that the groups are separate in every sample
CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [3.0, 5.2]])
DATA = {
    "blobs": "separate, compact groups",
    "moons": "two curves",
    "circles": "one group around another",
    "digits": "images",
}
RIVALS = {"spectral": "spectral clustering", "kmeans": "k-means"}
_COLOURS = {"spectral": COLORS["geco"], "kmeans": COLORS["annealed-elbo"]}


class SpectralLink(Study):
    """The partition of the global optimum beside that of spectral clustering at the same T."""

    name = "spectral"
    title = "The link with spectral clustering"
    source = "The link is the paper's [second-hand]; the measure, the rule and the data [ours]"
    look_for = (
        "Where the number of decoder values stays the same over a wide range of temperatures "
        "(shaded), the blue lines should be near 1: both methods then cut the data alike. They "
        "are on compact groups; k-means, which knows no affinity, is drawn for comparison."
    )
    order = 10

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """Adjusted Rand indices over temperature, for each dataset and several samples of it."""
        names = ("blobs", "moons") if profile.name == "smoke" else tuple(DATA)
        rows = [
            xr.concat(
                [
                    compared(*sample(name, SIZES[profile.name], seed), STEPS[profile.name])
                    for seed in range(SAMPLES[profile.name])
                ],
                dim="sample",
                join="outer",
                combine_attrs="override",
            )
            for name in names
        ]
        data = xr.concat(rows, dim="data", join="outer", combine_attrs="override")
        return data.assign_coords(data=list(names), sample=np.arange(data.sizes["sample"]))

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """Agreement above, the number of clusters below."""
        names = data["data"].values
        figure, axes = new_figure(2, len(names), width=2.75 * len(names) + 0.4, height=4.6)
        for column, name in enumerate(names):
            upper, lower = axes[column], axes[len(names) + column]
            for index in range(data.sizes["sample"]):
                part = data.sel(data=name).isel(sample=index)
                temperature = part["temperature"].values
                for rival, label in RIVALS.items():
                    upper.plot(
                        temperature,
                        part["agreement"].sel(rival=rival),
                        color=_COLOURS[rival],
                        linewidth=1.1,
                        alpha=0.85,
                        label=label if index == 0 else None,
                    )
                lower.step(
                    temperature, part["n_clusters"], color="#444444", linewidth=1, where="mid"
                )
                where = plateau(part)
                if where.size:
                    for panel in (upper, lower):
                        panel.axvspan(
                            temperature[where[0]],
                            temperature[where[-1]],
                            color="#f3ead2",
                            zorder=0,
                        )
            upper.sharex(lower)
            lower.set_xscale("log")
            lower.xaxis.set_minor_formatter(NullFormatter())
            upper.tick_params(labelbottom=False)
            upper.set(title=str(name), ylim=(-0.05, 1.05))
            lower.set_yscale("log", base=2)
            lower.set(xlabel="temperature T")
            lower.yaxis.set_major_formatter(FormatStrFormatter("%d"))
            lower.set_ylim(0.8, 4 * MOST)
        axes[0].set_ylabel("adjusted Rand index")
        axes[len(names)].set_ylabel("clusters of the fixed points")
        place_legend_below(figure, axes[0], 2)
        return [
            Drawing(
                "agreement",
                figure,
                "; ".join(f"{name}: {DATA[str(name)]}" for name in names)
                + ". Above: agreement of the fixed points' partition with another method's, told "
                "the same number of clusters, spectral clustering with the affinity "
                "exp(−‖x − x′‖² / 2T) at the same T; one line for each sample. Below: the number "
                "of clusters. Shaded: the widest range of equal numbers.",
                "Adjusted Rand index and number of clusters over temperature for each dataset",
            )
        ]

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Where the link holds and where it does not, in numbers."""
        rows = []
        for name in data["data"].values:
            part = data.sel(data=name)
            found = [widest_plateau(part.isel(sample=i)) for i in range(part.sizes["sample"])]
            middle = part["agreement"].median("temperature_index")
            rows.append(
                (
                    f"{name}: {DATA[str(name)]}",
                    ", ".join(f"{k:g}" if k else "none" for k, _, _ in found),
                    spread(xr.DataArray([width for _, width, _ in found]), 2),
                    spread(xr.DataArray([value for _, _, value in found]), 2),
                    *(spread(middle.sel(rival=rival), 2) for rival in RIVALS),
                    *(
                        spread(part["best_accuracy"].sel(clustering=method), 2)
                        for method in ("fixed_points", "spectral")
                    ),
                )
            )
        columns = (
            "data", "K of the widest plateau", "its width in ln T", "ARI with spectral there",
            "median ARI over T, spectral", "median ARI over T, k-means",
            "ARI with the true labels, fixed points (best T)",
            "ARI with the true labels, spectral (best T)",
        )  # fmt: skip
        one, many = "sample of each dataset", "samples of each dataset"
        caption = ranging(data.sizes["sample"], one, many, what="Mean and range")
        return [Table(caption, columns, tuple(rows))]

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """Equal partitions where the number of clusters is well defined."""
        claims = []
        for name in data["data"].values:
            part = data.sel(data=name)
            values = [widest_plateau(part.isel(sample=i))[2] for i in range(part.sizes["sample"])]
            near = sum(value >= AGREE for value in values)
            known = [value for value in values if math.isfinite(value)]
            told = spread(xr.DataArray(known), 2) if known else "no plateau"
            claims.append(
                Claim(
                    f"The fixed points find the clusters of spectral clustering: {name}, "
                    f"{DATA[str(name)]}",
                    "on the widest plateau of the number of clusters K ≥ 2 the median adjusted "
                    f"Rand index with spectral clustering at the same T and K is at least "
                    f"{AGREE:g}, in every sample; no plateau counts against it",
                    f"{near} of {counted(len(values), 'sample')}; ARI {told}",
                    by_share(near, len(values)),
                )
            )
        return claims


def sample(name: str, size: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points and true labels of one sample of a dataset.

    Raises:
        ValueError: for a name that is not known.
    """
    match name:
        case "blobs":
            points, labels = make_blobs(size, centers=CENTRES, random_state=seed)
        case "moons":
            points, labels = make_moons(size, noise=0.06, random_state=seed)
        case "circles":
            points, labels = make_circles(size, noise=0.05, factor=0.4, random_state=seed)
        case "digits":
            digits = load_digits()
            rows = np.random.default_rng(seed).permutation(len(digits.data))[: 2 * size]
            points, labels = digits.data[rows] / 16, digits.target[rows]
        case _:
            raise ValueError(f"`name` must be one of {', '.join(DATA)}; got {name!r}")
    return np.asarray(points, dtype=np.float64), np.asarray(labels, dtype=np.int64)


def compared(
    points: NDArray[np.float64], labels: NDArray[np.int64], temperatures: int
) -> xr.Dataset:
    """The comparison over a temperature index, so that samples with other temperatures line up."""
    analysis = PhaseTransitions(temperatures=temperatures, n_transitions=0).fit(points)
    found = compare_spectral_clustering(
        points, labels, analysis=analysis, max_clusters=MOST, random_state=0
    )
    names = ["n_clusters", "agreement", "best_accuracy"]
    found = found[names].rename_dims(temperature="temperature_index")
    found = found.drop_indexes("temperature").reset_coords("temperature")
    return found.assign(n_clusters=found["n_clusters"].astype(float))


def plateau(part: xr.Dataset) -> NDArray[np.intp]:
    """The temperature indices of the widest run of equal K in 2..20 in ln T; empty if none.

    The run that reaches the coldest temperature is left out: it has no end that could be seen.
    """
    counts = part["n_clusters"].values
    logs = np.log(part["temperature"].values)
    known = np.flatnonzero(np.isfinite(counts))
    counts, logs = counts[known], logs[known]
    best, widest = np.arange(0), 0.0
    for run in np.split(known, np.flatnonzero(np.diff(counts)) + 1):
        if not run.size or run[0] == 0 or not 2 <= counts[run[0]] <= MOST:
            continue
        width = float(logs[run[-1]] - logs[run[0]])
        if width > widest:
            best, widest = run, width
    return best


def widest_plateau(part: xr.Dataset) -> tuple[int, float, float]:
    """K, width in ln T and median agreement with spectral clustering on the widest plateau.

    Zero, zero and minus infinity if there is none: no agreement then.
    """
    where = plateau(part)
    if not where.size:
        return 0, 0.0, -math.inf
    temperature = part["temperature"].values[where]
    values = part["agreement"].sel(rival="spectral").values[where]
    middle = float(np.nanmedian(values)) if np.isfinite(values).any() else -math.inf
    width = float(np.log(temperature[-1] / temperature[0]))
    return int(part["n_clusters"].values[where[0]]), width, middle
