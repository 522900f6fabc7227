"""Every study, end to end, on real but very short runs of the smoke profile."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.text import Text

from geco_experiments import cli, open_run, run
from geco_experiments.builders import classifiers
from geco_experiments.cli.reproduce import expected
from geco_experiments.config import (
    DatasetConfig,
    ExecutionConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
)
from geco_experiments.datasets.home import DataHome
from geco_experiments.evaluation.bounds import data_limits, least_kl
from geco_experiments.report import build_report
from geco_experiments.reproduce import reproduce
from geco_experiments.results.findings import read_findings
from geco_experiments.studies import (
    STUDIES,
    Profile,
    choose,
    cost,
    figure_1,
    figure_2,
    names,
    spectral,
)
from geco_experiments.studies.all_runs import below_bound
from geco_experiments.studies.common import profiles as grid
from geco_experiments.studies.common.study import legible, put_off
from geco_experiments.studies.common.style import LABELS, SMALL, TEXT, WIDTH, styled
from geco_experiments.studies.common.verdicts import by_share, by_sign
from geco_experiments.studies.cost import KAPPA, next_beta
from geco_experiments.studies.figure_3 import turn
from geco_experiments.studies.figure_5 import SameError, relative_kl
from geco_experiments.studies.target import smooth

SMOKE = Profile("smoke")


@pytest.fixture(scope="module")
def tiny():
    """The smoke profile's runs cut to a few steps on a few images; nothing else is changed."""
    sizes = {
        name: replace(
            size, steps=3, batch_size=16, latents=3, width=4, train_limit=60, test_limit=20,
            draw_steps=2,
        )
        for name, size in grid._SIZES["smoke"].items()
    }  # fmt: skip
    train = classifiers.train_classifier
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            classifiers,
            "train_classifier",
            lambda *args, epochs, **options: train(*args, epochs=min(epochs, 2), **options),
        )
        patch.setitem(grid._SIZES, "smoke", sizes)
        patch.setattr(figure_1, "CELLS", 11)
        patch.setitem(figure_2.ROWS, "smoke", 60)
        patch.setitem(figure_2.STEPS, "smoke", 14)
        patch.setitem(figure_2.STEPS_DIGITS, "smoke", 10)
        patch.setattr(figure_2, "LOCATED", 4)
        patch.setitem(spectral.SIZES, "smoke", 30)
        yield


@pytest.fixture(scope="module")
def results(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "MOST", 3)  # runs of a search, which never hits in so short runs
        reproduce(STUDIES, SMOKE, out, executor="serial")
    torch.set_num_threads(threads)
    return out


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_leaves_numbers_figures_and_words(results, study):
    folder = results / "studies" / study.name
    findings = read_findings(folder / "study.json")
    assert findings.figures
    for figure in findings.figures:
        text = (folder / figure.file).read_text("utf-8")
        assert text.rstrip().endswith("</svg>"), figure.file
        assert figure.alt
    data = xr.load_dataset(folder / "data.nc", engine="h5netcdf")
    assert data.attrs["title"] == study.title
    for table in findings.tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
    for claim in findings.claims:
        assert claim.rule
        assert claim.measured
    assert len(set(findings.runs)) == len(findings.runs)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_figures_and_claims_come_from_the_saved_numbers_alone(results, study):
    folder = results / "studies" / study.name
    data = xr.load_dataset(folder / "data.nc", engine="h5netcdf")
    findings = read_findings(folder / "study.json")
    assert tuple(study.claims(data)) == findings.claims
    assert tuple(map(legible, study.tables(data))) == findings.tables
    assert not any("nan" in cell for t in findings.tables for row in t.rows for cell in row)
    assert [drawing.name for drawing in study.draw(data)] == [
        figure.file.removesuffix(".svg") for figure in findings.figures
    ]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_type_has_the_same_two_sizes_in_every_figure(results, study):
    """The page shows all at one scale, so that equal sizes here are equal there."""
    data = xr.load_dataset(results / "studies" / study.name / "data.nc", engine="h5netcdf")
    with styled():
        drawings = study.draw(data)
    for drawing in drawings:
        assert drawing.canvas.get_figwidth() <= WIDTH
        shown = [text for text in drawing.canvas.findobj(Text) if text.get_text().strip()]
        assert shown
        assert {text.get_fontsize() for text in shown} <= {TEXT, SMALL}, drawing.name


def test_numbers_agree_with_their_nouns(results):
    text = (results / "index.html").read_text("utf-8")
    words = "seeds|runs|samples|studies|datasets|lines|pairs|images"
    assert not re.findall(rf"\b1 (?:{words})\b", text)


def test_the_page_holds_every_study(results):
    text = (results / "index.html").read_text("utf-8")
    for study in STUDIES:
        assert f'id="{study.name}"' in text, study.name


def minutes(words):
    """The time in words such as `about 82 minutes of training` or `about 2.1 hours ...`."""
    _, number, unit, *_ = words.split()
    return float(number) * {"minutes": 1, "hours": 60}[unit]


def test_the_expected_time_of_the_laptop_profile(tmp_path):
    laptop = Profile("laptop")
    assert 60 < minutes(expected(STUDIES, laptop, tmp_path, 2)) < 180
    for study in STUDIES[:-1]:  # the last reads all runs
        assert minutes(expected([study], laptop, tmp_path, 2)) < 90
    (config, *_) = STUDIES[0].configs(laptop)
    done = tmp_path / "runs" / config.name / "run.nc"
    before = expected(STUDIES[:1], laptop, tmp_path, 1)
    done.parent.mkdir(parents=True)
    done.touch()
    assert float(expected(STUDIES[:1], laptop, tmp_path, 1).split()[1]) < float(before.split()[1])


def test_nothing_is_made_twice(results, tiny):
    before = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/run.nc")}
    reproduce(STUDIES[:1], SMOKE, results, executor="serial")
    assert {path: path.stat().st_mtime_ns for path in results.glob("runs/*/run.nc")} == before


def test_no_run_lies_below_the_bound(results):
    data = xr.load_dataset(results / "studies" / "all-runs" / "data.nc", engine="h5netcdf")
    runs = [path.parent.name for path in results.glob("runs/*/run.nc")]
    # of every study, follow-ups too; a run over a range for each of its tolerances
    assert sorted(set(data["name"].values)) == sorted(runs)
    assert len(data["name"]) == len(runs) + 4 * sum("geco-range" in name for name in runs)
    assert np.isfinite(data["least_kl_at_run"].values).all()
    assert below_bound(data)[0] == 0


@pytest.mark.parametrize("name", ["figure-3", "figure-4", "marginal-kl", "linear-gaussian"])
def test_every_information_plane_has_both_limits(results, name):
    data = xr.load_dataset(results / "studies" / name / "data.nc", engine="h5netcdf")
    limits = data.sel(known_dataset="digits")
    bound, linear = limits["least_kl"].values, limits["linear_kl"].values
    both = np.isfinite(bound) & np.isfinite(linear)
    assert both.sum() > 10
    assert (bound[both] <= linear[both] + 1e-9).all()
    study = next(study for study in STUDIES if study.name == name)
    assert study.bounded
    shown = {text for drawing in study.draw(data) for text in labels_of(drawing.canvas)}
    assert LABELS["bound"] in shown
    assert LABELS["linear"] in shown or name == "linear-gaussian"


def labels_of(figure):
    return [label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]]


def test_the_bound_catches_a_wrong_kl_or_error(tiny, tmp_path):
    """On a trained model the bound is well above zero, and a wrong KL or error falls below it."""
    config = RunConfig(
        dataset=DatasetConfig(train_limit=100, test_limit=20),
        model=ModelConfig(name="mlp-vae", latents=8),
        objective=ObjectiveConfig(kappa=0.12),
        training=TrainingConfig(steps=600, batch_size=50, marginal_samples=0),
        execution=ExecutionConfig(device="cpu", threads=1),
    )
    finished = open_run(run(config, tmp_path / "runs")).sel(split="train")
    limits = data_limits(config.dataset, DataHome.resolve(), tmp_path / "limits", temperatures=8)
    kl, error = float(finished["final_kl"]), float(finished["final_rms_error"])
    least = float(least_kl(limits, error))
    assert least > 1.5
    assert kl > least
    assert kl / config.model.latents < least  # the mean over latents in place of their sum
    # an error taken over twice the elements and a KL in units of ten nats would be seen too
    assert kl / 10 < float(least_kl(limits, error / math.sqrt(2)))


def test_the_bound_from_blocks_is_below_that_of_the_whole_set(tmp_path, monkeypatch):
    config = DatasetConfig(train_limit=240)
    whole = data_limits(config, DataHome.resolve(), tmp_path / "whole", temperatures=5)
    for name, value in (("LARGE", 200), ("BLOCK", 60), ("BLOCKS", 4), ("COMPONENTS", 64)):
        monkeypatch.setattr(f"geco_experiments.evaluation.bounds.{name}", value)
    blocks = data_limits(config, DataHome.resolve(), tmp_path / "blocks", temperatures=5)
    assert (whole.attrs["blocks"], blocks.attrs["blocks"]) == (1, 4)
    errors = np.linspace(0.05, 0.25, 9)
    assert (least_kl(blocks, errors) <= least_kl(whole, errors) + 1e-3).all()
    assert least_kl(blocks, 0.1) > 1


def test_the_bound_is_zero_above_the_transition_and_at_most_the_linear_rate(results):
    limits = xr.load_dataset(next((results / "limits").glob("*.nc")), engine="h5netcdf")
    total = math.sqrt(
        2 * float(limits["free_energy"].isel(temperature=-1)) / limits.attrs["features"]
    )
    assert least_kl(limits, 2 * total) == 0
    assert (least_kl(limits, limits["rms"].values) <= limits["linear_kl"].values + 1e-9).all()


def test_the_limits_are_read_back(results, monkeypatch):
    study = STUDIES[3]
    config = study.configs(SMOKE)[0].dataset
    monkeypatch.setattr(
        "geco_experiments.evaluation.bounds.load", None
    )  # must not be needed again
    (path,) = (results / "limits").glob("*.nc")
    config = replace(config, train_limit=60)
    again = data_limits(config, None, path.parent, temperatures=int(path.stem.rsplit("-", 1)[1]))
    xr.testing.assert_identical(again, xr.load_dataset(path, engine="h5netcdf"))


def test_the_search_brackets_and_bisects():
    low, high = 0.9 * KAPPA, 1.2 * KAPPA
    assert next_beta({1.0: high}) == pytest.approx(0.1)
    assert next_beta({1.0: low}) == pytest.approx(10.0)
    assert next_beta({1.0: high, 0.01: low}) == pytest.approx(0.1)
    assert next_beta({1.0: high, 0.01: low, 0.1: KAPPA * 1.005}) is None


@pytest.mark.parametrize("slope", [0.2, 0.5, 1.3])
def test_the_search_ends_at_the_target_of_any_rising_curve(slope):
    tried = {}
    beta = 1.0
    while beta is not None:
        tried[beta] = KAPPA * (beta / 0.0371) ** slope
        beta = next_beta(tried)
    assert abs(list(tried.values())[-1] / KAPPA - 1) <= 0.01
    assert len(tried) <= 12


def test_the_turn_of_beta_is_read_off_a_history():
    run = xr.Dataset(
        {
            "beta": ("step", [1.0, 0.5, 0.2, 0.4]),
            "moving_average": ("step", [1.0, 0.5, -0.1, 0.1]),
        },
        coords={"step": [1, 2, 3, 4]},
    )
    assert turn(run) == {"step_met": 3, "beta_start": 1.0, "beta_met": 0.2, "beta_end": 0.4}
    never = turn(run.assign(moving_average=("step", [1.0, 1.0, 1.0, 1.0])))
    assert math.isnan(never["step_met"])


def test_larger_images_get_larger_models_in_the_smoke_profile():
    """What reaches an error of 0.1 on 8 x 8 pixels does not on 28 x 28."""
    small, large = (
        grid.run_config(
            Profile("smoke", dataset=name), name or "digits", "conv-vae", grid.geco(0.1)
        )
        for name in (None, "mnist")
    )
    assert large.model.latents > small.model.latents
    assert large.training.steps > small.training.steps
    words = expected(STUDIES, Profile("smoke", dataset="mnist"), None, 2)
    assert words != expected(STUDIES, SMOKE, None, 2)


def test_a_lower_kl_at_a_larger_error_decides_nothing():
    """Seed 0: same error; seed 1: GECO ends 5% above it, where a lower KL is no merit."""
    runs = xr.Dataset(
        {
            "final_kl": (("run", "split"), [[20.0], [15.0], [20.0], [10.0]]),
            "final_rms_error": (("run", "split"), [[0.1], [0.101], [0.1], [0.105]]),
            "objective": ("run", ["elbo", "geco", "elbo", "geco"]),
            "seed": ("run", [0, 0, 1, 1]),
        },
        coords={"split": ["train"]},
    )
    np.testing.assert_allclose(relative_kl(runs), [-0.25, math.nan])
    (table,) = SameError().tables(runs)
    assert [row[-1] for row in table.rows] == ["-25.0%", "none: errors differ"]
    (claim,) = SameError().claims(runs)
    assert claim.verdict == "not decided"
    assert "(not: seed 1)" in claim.measured
    assert "1 of 2 seeds" in claim.measured


def test_smoothing_keeps_constants_and_skips_gaps():
    values = np.full(300, 2.5)
    values[7] = math.nan
    np.testing.assert_allclose(smooth(values), 2.5)


def counted(counts, agreement=0.95):
    """A comparison whose numbers of clusters at T = e^0, e^1, ... are given."""
    places = np.arange(len(counts))
    return xr.Dataset(
        {
            "n_clusters": ("temperature_index", np.asarray(counts, dtype=float)),
            "temperature": ("temperature_index", np.exp(places)),
            "agreement": (
                ("temperature_index", "rival"),
                np.full((len(counts), 1), agreement),
            ),
        },
        coords={"rival": ["spectral"]},
    )


def test_the_widest_plateau():
    assert spectral.widest_plateau(counted([9, 3, 3, 3, 2, 2, 1, 1, 1])) == (
        3, pytest.approx(2.0), 0.95,
    )  # fmt: skip
    # neither one cluster, nor the coldest run, nor more clusters than are compared, nor a gap
    none = (0, 0.0, -math.inf)
    assert spectral.widest_plateau(counted([4, 4, 4, 2, 1, 1])) == none
    assert spectral.widest_plateau(counted([50, 40, 40, 40, 1, 1])) == none
    assert spectral.widest_plateau(counted([9, 3, 3, math.nan, math.nan]))[:2] == (3, 1.0)
    assert spectral.widest_plateau(counted([9, 3, 3, 1], agreement=math.nan))[2] == -math.inf


def test_spectral_samples_differ_by_seed_and_repeat():
    for name in spectral.DATA:
        first, labels = spectral.sample(name, 20, 0)
        np.testing.assert_array_equal(first, spectral.sample(name, 20, 0)[0])
        assert not np.array_equal(first, spectral.sample(name, 20, 1)[0])
        assert len(first) == len(labels)
    with pytest.raises(ValueError, match="`name` must be one of blobs"):
        spectral.sample("stars", 20, 0)


def test_verdicts():
    assert by_share(3, 3) == "holds"
    assert by_share(2, 4) == "does not hold here"
    assert by_share(9, 10, enough=0.9) == "holds"
    assert by_share(1, 4) == "does not hold here"
    assert by_share(0, 0) == "not decided"
    assert by_sign([-0.2, -0.1, -0.3], 0.05) == "holds"
    assert by_sign([-0.2, -0.01, -0.3], 0.05) == "does not hold here"
    assert by_sign([0.2, -0.01, 0.3], 0.05) == "does not hold here"
    assert by_sign([-1.0, -1.0], 0.05) == "not decided"


def test_missing_data_ends_the_command_with_its_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GECO_DATA_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["--study", "target", "--dataset", "mnist", "--executor", "serial"]
    code = cli.main(["reproduce", *words, "--out", str(tmp_path)])
    assert code == 2
    told = capsys.readouterr().err
    assert told.count("train-images-idx3-ubyte") == 1
    assert "geco data fetch mnist" in told
    assert str(tmp_path / "nowhere") in told
    assert "Traceback" not in told
    assert not (tmp_path / "runs").exists()  # nothing was started


def test_what_the_smoke_profile_puts_off_is_listed_with_its_command(tmp_path):
    made, later = choose(None, SMOKE)
    assert not {study.name for study in made} & {study.name for study in later}
    assert {study.name for study in made} | {study.name for study in later} == set(names())
    everything, none = choose(None, Profile("laptop"))
    assert len(everything) == len(STUDIES)
    assert not none
    assert choose(["figure-4"], SMOKE)[0][0].name == "figure-4"
    for study in later:
        put_off(study, tmp_path / "studies" / study.name)
    text = build_report(tmp_path).read_text("utf-8")
    for study in later:
        assert f"geco reproduce --profile laptop --study {study.name}" in text
        assert f'id="{study.name}"' not in text
    # only the runs of studies that are made
    configs = {config.name for study in made for config in study.configs(SMOKE)}
    assert not {c.name for c in later[0].configs(SMOKE)} <= configs


def test_the_detector_is_judged_only_where_births_are_known():
    """A detection that lies 5.1% above a birth is off by 5.1%, not by its logarithm."""
    study = figure_2.PhaseDiagram()
    temperature = np.geomspace(0.5, 2, 41)
    near = {1.04: "holds", 1.06: "does not hold here"}
    for factor, verdict in near.items():
        births = temperature[20] / factor
        distortion = np.where(temperature < temperature[20], 0.0, temperature - temperature[20])
        data = xr.Dataset(
            {
                "blobs0_distortion": ("blobs0_temperature", distortion),
                "blobs0_at_temperature": ("blobs0_row", [births]),
                "blobs0_at_kind": ("blobs0_row", ["birth"]),
            },
            coords={"blobs0_temperature": temperature},
            attrs={"samples": 1},
        )
        (claim,) = study.claims(data)
        assert claim.verdict == verdict
