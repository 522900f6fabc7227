"""Figure 2: fixed points against beta, the critical temperatures and the paper's detector."""

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.datasets import make_blobs

from geco_experiments.config import DatasetConfig
from geco_experiments.datasets.home import DataHome
from geco_experiments.evaluation.bounds import training_matrix
from geco_experiments.results.findings import Claim, Table
from geco_experiments.studies.common.profiles import Profile
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.verdicts import by_share
from geco_theory import PhaseTransitions, detect, gaussian_grid, solve_latent_grid
from geco_theory.plots import plot_phase_diagram, plot_trajectories

__all__ = ["PhaseDiagram"]

CENTRES = np.array([[-2.0, -1.2], [-1.4, 1.5], [1.6, 1.1], [2.1, -1.4]])
SHARES = (0.05, 0.3, 0.7)  # of the stability temperature: the three pictures of trajectories
NEAR = 0.05  # a detected temperature counts as found within 5%
ROWS = {"smoke": 200, "laptop": 600, "paper": 1797}
# finer than NEAR: a bend must not be missed because of the grid
STEPS = {"smoke": 200, "laptop": 240, "paper": 400}
STEPS_DIGITS = {"smoke": 40, "laptop": 80, "paper": 120}
LOCATED = 24  # births below the top one; what is shown ends where they do
SAMPLES = {"smoke": 1, "laptop": 3, "paper": 5}  # of each dataset; the first is drawn


class PhaseDiagram(Study):
    """Trajectories of the decoder values, RE over beta, and where it bends."""

    name = "figure-2"
    title = "Fixed points, critical temperatures and the detector"
    source = "Figure 2 [paper]; exact critical temperatures from D2 and D9 [derived]; data [ours]"
    look_for = (
        "As the temperature T = βσ² rises, decoder values (red) merge; the error bends where they "
        "do. The detector, the places where the second derivative is largest in size, finds some "
        "of these temperatures; the exact ones are drawn beside them."
    )
    order = 2

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """The global optimum over temperature, on samples of blobs in the plane and of digits."""
        digits = training_matrix(DatasetConfig(), DataHome.resolve(data_home))
        parts = []
        for index in range(SAMPLES[profile.name]):
            blobs, _ = make_blobs(80, centers=CENTRES, cluster_std=0.35, random_state=1 + index)
            rows = np.random.default_rng(index).permutation(len(digits))[: ROWS[profile.name]]
            parts += [
                solved(blobs, f"blobs{index}", STEPS[profile.name], lowest=1 / 60),
                solved(
                    digits[rows].astype(np.float64),
                    f"digits{index}",
                    STEPS_DIGITS[profile.name],
                    lowest=0.8,
                ),
            ]
        data = xr.merge(parts, combine_attrs="drop_conflicts")
        data.attrs["samples"] = SAMPLES[profile.name]
        points, _ = make_blobs(80, centers=CENTRES, cluster_std=0.35, random_state=1)
        data["points"] = (("point", "axis"), points)
        grid = gaussian_grid(17, dimensions=2, extent=2.5)
        top = float(np.linalg.eigvalsh(np.cov(points.T, bias=True))[-1])
        for index, share in enumerate(SHARES):
            run = solve_latent_grid(
                points, grid, temperature=share * top, keep_trajectory=True, random_state=0
            )
            path = run["trajectory"].values
            keep = np.unique(np.linspace(0, len(path) - 1, 25).astype(int))
            data[f"trajectory_{index}"] = ((f"iteration_{index}", "cell", "axis"), path[keep])
            data[f"trajectory_temperature_{index}"] = float(run["temperature"])
        return data

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """Trajectories, then a phase diagram for each dataset."""
        pictures = [
            xr.Dataset(
                {
                    "trajectory": data[f"trajectory_{index}"],
                    "temperature": data[f"trajectory_temperature_{index}"],
                }
            )
            for index in range(len(SHARES))
        ]
        drawings = [
            Drawing(
                "trajectories",
                plot_trajectories(data["points"].values, pictures),
                "Decoder values on a 17 x 17 latent grid moving to their fixed points (Eqs. (3) "
                "and (4)) at three temperatures; blobs in the plane.",
                "Three panels: data in blue, paths in grey, fixed points in red",
            )
        ]
        for name in ("blobs", "digits"):
            path, transitions, detected = unpack(data, f"{name}0")
            drawings.append(
                Drawing(
                    f"phases-{name}",
                    plot_phase_diagram(path, transitions, detected),
                    f"{name.capitalize()}: the global optimum (free masses, certified) over "
                    "temperature, as far down as its births were located. Lines: exact critical "
                    "temperatures, all of this range; dotted lines: what the paper's detector "
                    "finds, the three places where the second derivative is largest in size, "
                    "peaks and troughs alike.",
                    f"Reconstruction error, its second derivative and the number of decoder "
                    f"values of {name} over temperature",
                )
            )
        return drawings

    def tables(self, data: xr.Dataset) -> list[Table]:
        """The top of the phase diagram of each dataset."""
        rows = []
        for name in samples(data):
            path, transitions, detected = unpack(data, name)
            births = exact_births(transitions)
            rows.append(
                (
                    name,
                    f"{data.attrs[f'{name}_stability']:.5g}",
                    f"{births.max():.5g}",
                    f"{births.max() / data.attrs[f'{name}_stability']:.4f}",
                    str(births.size),
                    ", ".join(f"{value:.4g}" for value in detected),
                    f"{float(path['certificate'].max()):.1e}",
                )
            )
        columns = (
            "data", "stability limit (D2)", "top transition (D9)", "ratio", "births located",
            "detected (top three)", "largest certificate ln S",
        )  # fmt: skip
        return [Table("Temperatures T = βσ², squared data units.", columns, tuple(rows))]

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """Fixed points merge at critical temperatures and the detector finds them."""
        hits, total, told = 0, 0, []
        for name in samples(data):
            if not name.startswith("blobs"):  # births lie closer together than NEAR
                continue
            _, transitions, detected = unpack(data, name)
            exact = exact_births(transitions)
            away = np.array([np.abs(value / exact - 1).min() for value in detected])
            near = int((away <= NEAR).sum())
            hits, total = hits + near, total + away.size
            told.append(f"{name}: {near} of {away.size}, the farthest {100 * away.max():.1f}% off")
        return [
            Claim(
                "The error bends at critical temperatures, where fixed points merge",
                f"each of the three detected temperatures lies within {100 * NEAR:.0f}% of an "
                "exact one, on every sample of blobs, where births are far apart; on digits they "
                "lie closer together than that",
                "; ".join(told),
                by_share(hits, total),
            )
        ]


def exact_births(transitions: xr.Dataset) -> NDArray[np.float64]:
    """The temperatures at which a decoder value is born on cooling."""
    rows = transitions["kind"].values == "birth"
    return np.asarray(transitions["temperature"].values[rows], dtype=np.float64)


def samples(data: xr.Dataset) -> list[str]:
    """The names of the samples: blobs0, digits0, blobs1, ..."""
    return [
        f"{name}{index}" for index in range(data.attrs["samples"]) for name in ("blobs", "digits")
    ]


def solved(points: NDArray[np.float64], name: str, steps: int, *, lowest: float) -> xr.Dataset:
    """The path and the transitions of one dataset under names of its own."""
    top = float(np.linalg.eigvalsh(np.cov(points.T, bias=True))[-1])
    analysis = PhaseTransitions(
        masses="free",
        temperatures=np.geomspace(lowest * top, 1.4 * top, steps),
        n_transitions=LOCATED,
    ).fit(points)
    path = analysis.path_.assign(converged=analysis.path_["converged"].astype(np.int8))
    # below the last birth that was located there may be more: nothing is shown or judged there
    births = exact_births(analysis.transitions_)
    if births.size > LOCATED:
        path = path.isel(temperature=np.flatnonzero(path["temperature"].values >= births.min()))
    path = path.rename({key: f"{name}_{key}" for key in path.variables})
    transitions = analysis.transitions_.drop_vars("direction", errors="ignore")
    transitions = transitions.reset_coords()
    transitions = transitions.rename(
        {key: f"{name}_at_{key}" for key in transitions.data_vars} | {"transition": f"{name}_row"}
    )
    merged = xr.merge([path, transitions], combine_attrs="drop")
    merged.attrs[f"{name}_stability"] = float(analysis.stability_temperature_)
    return merged


def unpack(data: xr.Dataset, name: str) -> tuple[xr.Dataset, xr.Dataset, NDArray[np.float64]]:
    """The path, the transitions and the detected temperatures of one dataset."""
    prefix, row = f"{name}_", f"{name}_at_"
    path = data[[key for key in data.variables if str(key).startswith(prefix)]]
    path = path[[key for key in path.variables if not str(key).startswith(row)]]
    path = path.rename({key: str(key).removeprefix(prefix) for key in path.variables})
    transitions = data[[key for key in data.variables if str(key).startswith(row)]]
    transitions = transitions.rename(
        {key: str(key).removeprefix(row) for key in transitions.data_vars}
        | {f"{name}_row": "transition"}
    )
    return path, transitions, detect(path["temperature"].values, path["distortion"].values)
