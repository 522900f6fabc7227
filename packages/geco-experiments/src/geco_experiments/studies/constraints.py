"""Constraints: one model under RE, FRE, CLA and PNCC; what each keeps and what it drops."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geco_experiments.config import ConstraintName, ObjectiveConfig, RunConfig
from geco_experiments.datasets.home import DataHome
from geco_experiments.evaluation.constraints import MEASURES, measure_run
from geco_experiments.results.findings import Claim, Table
from geco_experiments.runtime.words import counted, named, ranging
from geco_experiments.studies.common.final_values import final_values, select, spread
from geco_experiments.studies.common.profiles import Profile, geco, run_config, seeds
from geco_experiments.studies.common.study import Drawing, Runs, Study
from geco_experiments.studies.common.style import COLORS, new_figure, place_legend_below
from geco_experiments.studies.common.verdicts import by_share, by_sign

__all__ = ["ConstraintStudy"]

MODEL = "conv-vae"
KAPPA = 0.1
# the measure that each constraint speaks of, and how near its level counts as reached: for errors
# a share of the level, for a correlation and a probability an absolute distance
ASKED: dict[ConstraintName, str] = {
    "re": "rms_error",
    "fre": "feature_error",
    "cla": "class_probability",
    "pncc": "patch_correlation",
}
RELATIVE, ABSOLUTE = 0.02, 0.01
# a level outside of what a constraint can be asked for (untrained models) is moved to its border
BORDERS: dict[ConstraintName, tuple[float, float]] = {
    "fre": (1e-4, 1e4),
    "cla": (0.01, 0.999),
    "pncc": (0.01, 0.999),
}
MARGIN = 0.01
EXAMPLES = 8
HEADINGS = {
    "rms_error": "RMS error",
    "feature_error": "feature error",
    "class_probability": "P(right class)",
    "class_accuracy": "accuracy",
    "patch_correlation": "patch correlation",
}


class ConstraintStudy(Study):
    """RE at a stated tolerance; each other constraint at the level that the RE run reached.

    The rule for the levels, the same for all: RE asks for an RMS error of 0.1. Its finished run
    is measured with every other constraint's own measure on the training set, and the run of the
    same seed under that constraint asks for just that level. So the RE solution is allowed to
    every run, and what a run does differently is what its constraint leaves free.
    """

    name = "constraints"
    title = "Four constraints: what each keeps and drops"
    source = "The constraints of Table 1 [second-hand]; levels, measures and sizes [ours]"
    look_for = (
        "Every row was asked for what the first one reaches by its own measure: RE keeps pixels, "
        "FRE brightness and contrast, CLA the class and hardly anything else, PNCC edges without "
        "their brightness; the nats say what that costs."
    )
    order = 6
    in_smoke = False
    growth = 4.0

    def configs(self, profile: Profile) -> list[RunConfig]:
        """The RE runs."""
        dataset = profile.pick("digits", "mnist")
        return [
            run_config(profile, dataset, MODEL, geco(KAPPA), seed=seed) for seed in seeds(profile)
        ]

    def follow_up(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> list[RunConfig]:
        """The other constraints, each at the level of the RE run of the same seed."""
        further = []
        for config in runs:
            if config.objective.constraint != "re":
                continue
            reached = self._measures(config, runs, data_home).sel(split="train")
            for constraint, (low, high) in BORDERS.items():
                kappa = float(np.clip(float(reached[ASKED[constraint]]), low, high))
                objective = ObjectiveConfig(constraint=constraint, kappa=round(kappa, 6))
                further.append(
                    run_config(profile, config.dataset.name, MODEL, objective, seed=config.seed)
                )
        return further

    def measure(
        self, runs: Runs, profile: Profile, *, data_home: Path | None = None
    ) -> xr.Dataset:
        """Final values and all measures of all runs; pictures of the first seed, held out."""
        table = final_values(runs)
        constraint = ("run", [config.objective.constraint for config in runs])
        measured = xr.concat(
            [self._measures(config, runs, data_home) for config in runs],
            dim="run",
            combine_attrs="override",
        )
        first = [config for config in runs if config.seed == 0]
        pictures = xr.concat(
            [
                runs[config][["inputs", "reconstructions"]].sel(split="test", drop=True)
                for config in first
            ],
            dim="picture",
            combine_attrs="override",
        ).isel(example=slice(EXAMPLES))
        samples = xr.concat([runs[config]["samples"] for config in first], dim="picture")
        pictures = pictures.assign(samples=samples.isel(example=slice(EXAMPLES)))
        shown = ("picture", [config.objective.constraint for config in first])
        return xr.merge(
            [
                table.assign_coords(constraint=constraint),
                measured,
                pictures.assign_coords(picture_constraint=shown),
            ],
            combine_attrs="drop",
        )

    def _measures(self, config: RunConfig, runs: Runs, data_home: Path | None) -> xr.Dataset:
        folder = runs.folder.parent / "measures"
        return measure_run(config, runs.path(config), folder, DataHome.resolve(data_home))

    def draw(self, data: xr.Dataset) -> list[Drawing]:
        """Pictures row by row, then the measures side by side."""
        return [self._pictures(data), self._kept(data)]

    def _pictures(self, data: xr.Dataset) -> Drawing:
        rows = [name for name in ASKED if name in data["picture_constraint"].values]
        figure, axes = new_figure(len(rows), 3, width=9.6, height=1.55 * len(rows) + 0.3)
        figure.set_layout_engine("constrained", wspace=0.06, hspace=0.04)
        columns = (
            ("inputs", "originals, held out"),
            ("reconstructions", "reconstructions"),
            ("samples", "samples"),
        )
        for row, name in enumerate(rows):
            index = int(np.flatnonzero(data["picture_constraint"].values == name)[0])
            part = select(data, constraint=name, seed=0).sel(split="train")
            for column, (variable, title) in enumerate(columns):
                panel = axes[3 * row + column]
                panel.imshow(mosaic(data[variable].isel(picture=index).values), **_GRAY)
                panel.set(xticks=[], yticks=[])
                panel.grid(visible=False)
                for spine in panel.spines.values():
                    spine.set_visible(False)
                if row == 0:
                    panel.set_title(title)
            label = f"{name.upper()}\n{float(part['final_kl'][0]):.1f} nats"
            axes[3 * row].set_ylabel(label, rotation=0, ha="right", va="center")
        return Drawing(
            "pictures",
            figure,
            f"ConvVAE on {data['dataset'].values[0]}, one seed. Each row: the constraint, the "
            "mean KL over the training set, the first held-out images, their reconstructions, "
            "and samples from the prior, all cut to the range of pixels.",
            "Originals, reconstructions and samples under four constraints, a row for each",
        )

    def _kept(self, data: xr.Dataset) -> Drawing:
        names = ["final_kl", *HEADINGS]
        titles = {**HEADINGS, "final_kl": "KL (nats)"}
        figure, axes = new_figure(2, 3, height=5.4)
        places = [list(ASKED).index(name) for name in data["constraint"].values]
        x = np.asarray(places, dtype=np.float64)
        for panel, name in zip(axes, names, strict=True):
            for split, marker, shift, face in (
                ("train", "o", -0.12, COLORS["geco"]),
                ("test", "o", 0.12, "white"),
            ):
                panel.plot(
                    x + shift,
                    data[name].sel(split=split),
                    marker=marker,
                    markersize=5,
                    linestyle="none",
                    color=COLORS["geco"],
                    markerfacecolor=face,
                    label="training set" if split == "train" else "held out",
                )
            asked = next((c for c, measure in ASKED.items() if measure == name), None)
            if asked is not None:
                level = select(data, constraint=asked)["kappa"].values
                panel.axhline(float(level.mean()), color=COLORS["kappa"], linestyle=":")
            panel.set(title=titles[name], xlim=(-0.6, len(ASKED) - 0.4))
            panel.set_xticks(range(len(ASKED)), [name.upper() for name in ASKED])
            panel.margins(y=0.12)
        place_legend_below(figure, axes[0], 2)
        return Drawing(
            "kept",
            figure,
            "What the reconstructions keep by every measure; each point is one run. Dotted: the "
            "level that the constraint of that measure asks for (mean over seeds); the accuracy "
            "is the judge's of CLA, beside the probability that CLA asks for. Low is better for "
            "both errors, high for the other three.",
            "KL and five measures of the reconstructions for each of four constraints",
        )

    def tables(self, data: xr.Dataset) -> list[Table]:
        """Every measure under every constraint, training set and held out."""
        columns = ("constraint", "asked for", "KL (nats)", *HEADINGS.values())
        count = len(np.unique(data["seed"].values))
        tables = []
        for split, words in (("train", "Training set"), ("test", "Held out")):
            rows = []
            for name, measure in ASKED.items():
                part = select(data, constraint=name)
                values = part.sel(split=split)
                rows.append(
                    (
                        name.upper(),
                        f"{HEADINGS[measure]} {spread(part['kappa'], 4)}",
                        spread(values["final_kl"], 3),
                        *(spread(values[each], 4) for each in MEASURES),
                    )
                )
            original = data.sel(split=split).isel(run=0)
            probability, accuracy = (
                f"{float(original[f'original_{name}']):.4g}"
                for name in ("probability", "accuracy")
            )
            rows.append(("the images", "", "", "0", "0", probability, accuracy, "1"))
            caption = f"{words}. {ranging(count, 'seed', what='Mean and range')}"
            tables.append(Table(caption, columns, tuple(rows)))
        return tables

    def claims(self, data: xr.Dataset) -> list[Claim]:
        """Each level is reached, and what asks for less costs less."""
        off, inside = deviations(data)
        told = []
        for name in ASKED:
            worst = max((off[i] for i in _rows(data, name)), key=abs)
            unit = f"{100 * worst:+.2f}%" if name in ("re", "fre") else f"{worst:+.4f}"
            told.append(f"{name.upper()} {unit}")
        missed = [
            f"{str(data['constraint'].values[i]).upper()} seed {int(data['seed'][i])}"
            for i in np.flatnonzero(~inside)
        ]
        effects = relative_kl(data)
        flat = [value for values in effects.values() for value in values]
        changes = "; ".join(
            f"{name.upper()} {spread(100 * xr.DataArray(values), 3)} %"
            for name, values in effects.items()
        )
        return [
            Claim(
                "GECO reaches the level asked for, whichever constraint it is given",
                f"on the training set RMS and feature error within {100 * RELATIVE:.0f}% of κ, "
                f"probability and correlation within {ABSOLUTE:g} of κ, in every run",
                f"{int(inside.sum())} of {counted(inside.size, 'run')}"
                f"{named('not', missed)}; largest deviations: " + ", ".join(told),
                by_share(int(inside.sum()), inside.size),
            ),
            Claim(
                "A constraint that leaves more free needs fewer nats than RE [ours]",
                "FRE, CLA and PNCC at the level of the RE run of the same seed: the KL is lower "
                f"by more than {100 * MARGIN:.0f}% in every run",
                f"KL against RE: {changes}",
                by_sign(flat, MARGIN),
            ),
        ]

    def notes(self, data: xr.Dataset) -> list[str]:
        """The rule for the levels, and the least KL that a class costs."""
        part = select(data, constraint="cla").sel(split="train")
        bounds = [
            fano(float(entropy), float(probability), 10)
            for entropy, probability in zip(
                part["label_entropy"].values, part["class_probability"].values, strict=True
            )
        ]
        return [
            "The levels: RE asks for an RMS error of 0.1; each other constraint asks for what the "
            "RE run of the same seed reaches by its measure on the training set. None was "
            "adjusted.",
            "By Fano's inequality no model can give the right class with the probability that the "
            f"CLA runs reach at less than {spread(xr.DataArray(bounds), 3)} nats; they use "
            f"{spread(part['final_kl'], 3)}.",
        ]


_GRAY: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255, "interpolation": "nearest"}


def mosaic(images: NDArray[np.uint8], columns: int = 4) -> NDArray[np.uint8]:
    """Images (n, C, H, W) side by side with a white line between: (H', W') or (H', W', 3)."""
    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet[:, :, 0] if channels == 1 else sheet


def deviations(data: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How far each run's own measure is from its level, training set, and whether it is near.

    Relative to the level for errors, absolute for probability and correlation.
    """
    off = np.empty(data.sizes["run"])
    near = np.empty(data.sizes["run"], dtype=bool)
    for index in range(data.sizes["run"]):
        run = data.isel(run=index).sel(split="train")
        name = str(run["constraint"].item())
        value, level = float(run[_measure(name)]), float(run["kappa"])
        relative = name in ("re", "fre")
        off[index] = value / level - 1 if relative else value - level
        near[index] = abs(off[index]) <= (RELATIVE if relative else ABSOLUTE)
    return off, near


def relative_kl(data: xr.Dataset) -> dict[str, list[float]]:
    """The relative change of the KL from RE to each other constraint, seed by seed."""
    changes: dict[str, list[float]] = {name: [] for name in BORDERS}
    for seed in np.unique(data["seed"].values):
        kl: dict[str, float] = {
            name: float(select(data, constraint=name, seed=seed)["final_kl"].sel(split="train")[0])
            for name in ASKED
        }
        for name, values in changes.items():
            values.append(kl[name] / kl["re"] - 1)
    return changes


def fano(entropy: float, probability: float, classes: int) -> float:
    r"""The least information in nats at which a class is named rightly with a probability.

    :math:`H(y) - h(e) - e \ln(K - 1)` with :math:`e = 1 - p`, at least 0 (Fano). By data
    processing and D6 the mean KL is at least as large.
    """
    error = min(max(1 - probability, 0.0), 1.0)
    binary = -sum(p * math.log(p) for p in (error, 1 - error) if p > 0)
    return max(0.0, entropy - binary - error * math.log(classes - 1))


def _measure(constraint: str) -> str:
    return next(measure for name, measure in ASKED.items() if name == constraint)


def _rows(data: xr.Dataset, constraint: str) -> NDArray[np.intp]:
    return np.flatnonzero(data["constraint"].values == constraint)
