import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geco_core import ToleranceRange
from geco_experiments.config import (
    DatasetConfig,
    ExecutionConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainingConfig,
    field_paths,
    replace,
)

positive = st.floats(1e-6, 1e6)
runs = st.builds(
    RunConfig,
    dataset=st.builds(
        DatasetConfig,
        name=st.sampled_from(["digits", "mnist", "celeba"]),
        train_limit=st.none() | st.integers(1, 10**6),
        conditional=st.booleans(),
    ),
    model=st.builds(ModelConfig, name=st.sampled_from(["conv-vae", "conv-draw"])),
    objective=st.builds(
        ObjectiveConfig,
        name=st.sampled_from(["geco", "elbo", "annealed-elbo", "sigma-vae"]),
        kappa=positive | st.integers(1, 5),
        rate=st.none() | positive,
    ),
    training=st.builds(TrainingConfig, steps=st.integers(1, 10**7), learning_rate=positive),
    seed=st.integers(0, 2**31 - 1),
)


@settings(deadline=None)
@given(runs)
def test_json_round_trip_keeps_configuration_and_name(config):
    again = RunConfig.from_json(config.to_json())
    assert again == config
    assert again.name == config.name
    json.loads(config.to_json())


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 1


def test_name_is_readable_and_hashed():
    name = replace(RunConfig(seed=3), {"dataset.name": "mnist", "objective.kappa": 0.06}).name
    prefix, _, digest = name.rpartition("-")
    assert prefix == "mnist-conv-vae-geco-kappa0.06-seed3"
    assert len(digest) == 8
    assert int(digest, 16) >= 0


def test_every_field_but_execution_changes_the_name():
    base = RunConfig()
    others = {
        bool: lambda v: not v,
        int: lambda v: v + 1,
        float: lambda v: v * 0.9 or 0.5,
        str: lambda v: v,
    }
    special = {
        "dataset.name": "mnist", "model.name": "conv-draw", "objective.name": "elbo",
        "objective.constraint": "pncc", "objective.update": "paper", "model.flow": "posterior",
        "training.precision": "bfloat16", "execution.device": "cpu",
        "objective.features": "classifier", "dataset.array": "x", "dataset.labels": "y",
        "dataset.context": "c", "dataset.mask": "m", "dataset.path": "somewhere.npz",
        "dataset.fingerprint": "0123", "model.fingerprint": "4567",
    }  # fmt: skip
    flat = {}
    for path in field_paths():
        value = base.to_dict()
        for part in path.split("."):
            value = value[part]
        flat[path] = value
    ranged = replace(base, {"objective.kappa": "0.05..0.2"})
    assert flat.pop("objective.kappa_grid") is None  # goes with a range alone
    assert replace(ranged, {"objective.kappa_grid": [0.1]}).digest != ranged.digest
    for path, value in flat.items():
        new = special.get(path, 7 if value is None else others[type(value)](value))
        if path in ("objective.rate", "objective.decay", "training.gradient_clip"):
            new = 0.5
        changed = replace(base, {path: new})
        unhashed = path.startswith("execution.") or path == "dataset.path"
        assert (changed.digest == base.digest) == unhashed, path


def test_whole_numbers_and_reals_make_the_same_run():
    assert ObjectiveConfig(kappa=1) == ObjectiveConfig(kappa=1.0)
    one, other = (RunConfig(objective=ObjectiveConfig(kappa=k)) for k in (1, 1.0))
    assert one.name == other.name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ObjectiveConfig(kappa=0), "`kappa` must be a finite number above 0; got 0"),
        (lambda: ObjectiveConfig(kappa=math.nan), "got nan"),
        (lambda: ObjectiveConfig(decay=1.0), "`decay` must be at least 0 and below 1"),
        (lambda: ObjectiveConfig(name="gecko"), "must be one of geco, elbo, annealed-elbo"),
        (lambda: TrainingConfig(steps=0), "`steps`"),
        (lambda: TrainingConfig(constant_share=1.5), "between 0 and 1"),
        (lambda: TrainingConfig(final_rate=2.0), "at most 1"),
        (lambda: TrainingConfig(marginal_samples=-1), "0 or more"),
        (lambda: ExecutionConfig(checkpoint_seconds=-1), "0 or more"),
        (lambda: ExecutionConfig(threads=0), "`threads`"),
        (lambda: DatasetConfig(train_limit=0), "`train_limit`"),
        (lambda: RunConfig(seed=-1), "`seed`"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainingConfig(steps=1.5), "`steps` must be a whole number; got 1.5"),
        (lambda: TrainingConfig(steps=True), "must be a whole number"),
        (lambda: ObjectiveConfig(kappa="small"), "`kappa` must be a number"),
        (lambda: RunConfig.from_dict({"dataset": 3}), "`dataset` must be a mapping"),
    ],
)
def test_values_of_the_wrong_type_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_unknown_fields_get_a_suggestion():
    with pytest.raises(ValueError, match=r"did you mean .*objective.kappa"):
        replace(RunConfig(), {"objective.kapa": 0.1})
    with pytest.raises(ValueError, match="names no field of a run"):
        RunConfig.from_dict({"sed": 3})


def test_labels_of_objectives():
    def label(**fields):
        return RunConfig(objective=ObjectiveConfig(**fields)).objective_label

    assert label() == "geco"
    assert label(constraint="pncc") == "geco-pncc"
    assert label(update="paper") == "geco-paper"
    assert label(name="elbo") == "elbo"
    assert label(name="elbo", beta=4.0) == "elbo-beta4"
    assert label(name="annealed-elbo") == "annealed-elbo"
    assert label(name="sigma-vae") == "sigma-vae"
    assert math.isnan(RunConfig(objective=ObjectiveConfig(name="elbo")).kappa)


def test_scalars_of_numpy_are_the_same_numbers():
    plain = RunConfig(
        seed=3,
        training=TrainingConfig(steps=10),
        objective=ObjectiveConfig(kappa=0.1),
        model=ModelConfig(shared=False, name="mlp-vae"),
    )
    scalars = RunConfig(
        seed=np.int64(3),
        training=TrainingConfig(steps=np.int32(10)),
        objective=ObjectiveConfig(kappa=np.float32(0.1)),
        model=ModelConfig(shared=np.bool_(False), name=np.str_("mlp-vae")),
    )
    assert scalars == plain
    assert scalars.name == plain.name
    with pytest.raises(TypeError, match="must be a whole number"):
        TrainingConfig(steps=np.float64(1.5))


def test_a_kappa_that_a_constraint_cannot_have():
    for constraint in ("pncc", "cla"):
        with pytest.raises(ValueError, match=r"must be between 0 and 1"):
            ObjectiveConfig(constraint=constraint, kappa=1.0)


def test_a_range_of_tolerances_has_one_form():
    ranges = ["0.06..0.2", " 0.060 .. 0.20 ", (0.06, 0.2), [0.06, 0.2], ToleranceRange(0.06, 0.2)]
    configs = [RunConfig(objective=ObjectiveConfig(kappa=value)) for value in ranges]
    assert {config.name for config in configs} == {configs[0].name}
    assert "geco-range-kappa0.06..0.2" in configs[0].name
    for config in configs:
        assert config.objective.kappa_range == (0.06, 0.2)
        assert math.isnan(config.kappa)
        assert RunConfig.from_json(config.to_json()) == config


def test_the_tolerances_that_a_run_is_evaluated_at():
    assert ObjectiveConfig(kappa=0.3).tolerances == (0.3,)
    assert ObjectiveConfig(name="elbo").tolerances == ()
    found = ObjectiveConfig(kappa=(0.06, 0.2)).tolerances
    assert (len(found), found[0], found[-1]) == (7, 0.06, 0.2)
    np.testing.assert_allclose(np.diff(np.log(found)), np.log(0.2 / 0.06) / 6, rtol=5e-3)
    chosen = ObjectiveConfig(kappa=(0.06, 0.2), kappa_grid=[0.2, 0.1, 0.1])
    assert chosen.tolerances == (0.1, 0.2)
    assert (
        RunConfig(objective=chosen).name
        != RunConfig(objective=ObjectiveConfig(kappa=(0.06, 0.2))).name
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kappa": "0.2..0.1"}, "low < high"),
        ({"kappa": (0.1,)}, "a number or a range such as"),
        ({"kappa": "x"}, "a number or a range such as"),
        ({"kappa": (0.1, 0.2), "name": "elbo"}, "for the objective geco only"),
        ({"kappa": (0.1, 2.0), "constraint": "cla"}, "must be between 0 and 1"),
        ({"kappa": (0.1, 0.2), "kappa_grid": (0.3,)}, "must hold numbers in the range"),
        ({"kappa": (0.1, 0.2), "kappa_grid": ()}, "must hold numbers in the range"),
        ({"kappa": 0.1, "kappa_grid": (0.1,)}, "goes with a range"),
        ({"kappa": (0.1, 0.2), "kappa_grid": 0.1}, "must be numbers or null"),
    ],
)
def test_ranges_that_are_none(changes, words):
    with pytest.raises((TypeError, ValueError), match=words):
        ObjectiveConfig(**changes)


def test_a_run_with_one_tolerance_keeps_its_name():
    """Names made before there were ranges still mean the same runs."""
    assert RunConfig().name == "digits-conv-vae-geco-kappa0.1-seed0-134bfc9e"


def test_parts_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="`model` must be a ModelConfig"):
        RunConfig(model="conv-vae")
