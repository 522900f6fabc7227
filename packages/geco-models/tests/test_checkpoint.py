"""Files: written whole, read without running code, refused with a reason."""

import os
import pickle

import pytest
import torch

from geco_models import MLPVAE, ConvVAE, LinearVAE, load
from geco_models import checkpoint as module


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pt"
    LinearVAE(4, 2, scale=3.0).save(path)
    return path


def test_file_holds_plain_data_and_tensors_only(file):
    content = torch.load(file, weights_only=True)
    assert content["model"] == "LinearVAE"
    assert content["config"] == {"features": 4, "latents": 2, "scale": 3.0}
    assert set(content["state"]) == set(LinearVAE(4, 2).state_dict())


def test_loading_draws_nothing_from_the_global_generator(file):
    state = torch.get_rng_state()
    load(file)
    assert torch.equal(torch.get_rng_state(), state)


def test_saved_types_return(tmp_path):
    model = ConvVAE((1, 8, 8), 2, 4).double()
    model.save(tmp_path / "model.pt")
    loaded = ConvVAE.load(tmp_path / "model.pt")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
        assert loaded.state_dict()[name].dtype == torch.float64, name


def test_loaded_model_trains(file):
    model = LinearVAE.load(file)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.randn(3, 4)).kl.sum().backward()
    optimizer.step()
    assert not torch.equal(before[0], next(model.parameters()).detach())


def test_another_class_is_refused(file):
    with pytest.raises(ValueError, match=r"holds a LinearVAE, not a MLPVAE: use LinearVAE.load"):
        MLPVAE.load(file)


def test_a_configuration_that_does_not_fit_the_weights_is_refused(file):
    content = torch.load(file, weights_only=True)
    for change in ({"latents": 3}, {"unknown": 1}, {"latents": 0}):
        torch.save({**content, "config": {**content["config"], **change}}, file)
        with pytest.raises(ValueError, match=r"configuration and the weights .* do not fit"):
            load(file)


def test_an_unknown_model_or_version_is_refused(file):
    content = torch.load(file, weights_only=True)
    torch.save({**content, "model": "Oracle"}, file)
    with pytest.raises(ValueError, match=r"'Oracle', which is none of the models here: .*ConvVAE"):
        load(file)
    torch.save({**content, "version": 99}, file)
    with pytest.raises(ValueError, match="format version 99, this release reads 1"):
        load(file)


def test_a_subclass_from_elsewhere_loads_by_its_own_name(tmp_path):
    class Own(LinearVAE):
        pass

    Own(4, 2).save(tmp_path / "model.pt")
    assert type(Own.load(tmp_path / "model.pt")) is Own
    with pytest.raises(ValueError, match="'Own', which is none of the models here"):
        load(tmp_path / "model.pt")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint file .*none\.pt"):
        load(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a model checkpoint, or it is damaged") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(file):
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a model checkpoint, or it is damaged"):
        load(file)


def test_another_programs_file_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is not a checkpoint written by a model's `save`"):
        load(tmp_path / "model.pt")
    torch.save(torch.zeros(3), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is not a checkpoint written by a model's `save`"):
        load(tmp_path / "model.pt")


class Trap:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="is not a model checkpoint"):
        load(path)


def test_a_failed_write_keeps_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def fail(content, target):
        target.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(module.torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        LinearVAE(9, 2).save(file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]
