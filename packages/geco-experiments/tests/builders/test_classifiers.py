import pytest
import torch

from geco_experiments import datasets, open_run, run
from geco_experiments.builders import classifiers
from geco_experiments.builders.classifiers import frozen_classifier, needs_classifier
from geco_experiments.runtime.distributed import Ranks
from geco_experiments.runtime.errors import RunError

CPU = torch.device("cpu")


@pytest.fixture
def cla(tiny):
    def make(**changes):
        base = {
            "objective.constraint": "cla",
            "objective.kappa": 0.8,
            "objective.classifier_steps": 60,
            "dataset.train_limit": 400,
        }
        return tiny(**base | changes)

    return make


def test_who_needs_one(tiny, cla):
    assert needs_classifier(cla())
    assert needs_classifier(
        tiny(**{"objective.constraint": "fre", "objective.features": "classifier"})
    )
    assert not needs_classifier(tiny(**{"objective.constraint": "fre"}))
    assert not needs_classifier(cla(**{"objective.name": "elbo"}))
    assert not needs_classifier(tiny())


def test_trained_once_kept_and_good(tmp_path, cla, home, monkeypatch):
    config = cla()
    data = datasets.load(config.dataset, home)
    judge = frozen_classifier(config, data, tmp_path, Ranks(), CPU)
    assert judge.accuracy > 0.8
    (kept,) = (tmp_path / classifiers.FOLDER).iterdir()
    monkeypatch.setattr(classifiers, "_train", None)
    # another seed of the run is judged by the same classifier
    again = frozen_classifier(cla(seed=5), data, tmp_path, Ranks(), CPU)
    for one, other in zip(judge.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    kept.write_bytes(b"cut")
    with pytest.raises(RunError, match=r"move .* away to train it again"):
        frozen_classifier(config, data, tmp_path, Ranks(), CPU)


def test_other_data_has_another_one(tmp_path, cla, home):
    for limit in (300, 400):
        config = cla(**{"dataset.train_limit": limit, "objective.classifier_steps": 5})
        data = datasets.load(config.dataset, home)
        frozen_classifier(config, data, tmp_path, Ranks(), CPU)
    assert len(list((tmp_path / classifiers.FOLDER).iterdir())) == 2


def test_a_run_under_it(tmp_path, cla):
    data = open_run(run(cla(), tmp_path))
    assert 0.8 < data.attrs["classifier_accuracy"] <= 1
    # the violation is kappa less the probability of the right class
    violation = data["final_constraint"].values
    assert ((violation > 0.8 - 1) & (violation < 0.8)).all()


def test_images_without_labels(tmp_path, cla, home):
    data = datasets.load(cla().dataset, home)
    bare = datasets.ImageData("toy", datasets.Split(data.train.images), data.test)
    with pytest.raises(RunError, match="toy has no labels"):
        frozen_classifier(cla(), bare, tmp_path, Ranks(), CPU)
