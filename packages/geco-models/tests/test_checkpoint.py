"""Files: written whole, read without running code, refused with a reason."""

import os
import pickle

import pytest
import torch

from geco_models import MLPVAE, ConvVAE, LinearVAE, SmallCNN, load
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


def test_one_load_serves_models_and_classifiers(tmp_path):
    SmallCNN((1, 8, 8), 3, 2).save(tmp_path / "classifier.pt")
    assert isinstance(load(tmp_path / "classifier.pt"), SmallCNN)
    with pytest.raises(ValueError, match=r"holds a SmallCNN, not a LinearVAE: use SmallCNN.load"):
        LinearVAE.load(tmp_path / "classifier.pt")


@pytest.mark.parametrize("device", ["cuda:7", "mps", "xpu:3"])
def test_a_device_that_is_not_here_is_named(file, device):
    if device.startswith("mps") and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(ValueError, match=f"`map_location` is '{device}', which this") as caught:
        load(file, map_location=device)
    assert "damaged" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["graphics card", None, 1.5])
def test_what_is_no_device_is_refused(file, device):
    with pytest.raises(ValueError, match="`map_location` must be a device such as 'cpu'"):
        load(file, map_location=device)


WRAPPERS = {
    "compiled": lambda name: "_orig_mod." + name,
    "parallel": lambda name: "module." + name,
    "parallel-compiled": lambda name: "module._orig_mod." + name,
    "compiled-parallel": lambda name: "_orig_mod.module." + name,
    "sharded": lambda name: "_fsdp_wrapped_module." + name,
    "compiled-part": lambda name: name.replace("encoder.", "encoder._orig_mod."),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_names_of_wrapped_models_are_understood(wrapper):
    source, target = MLPVAE((4,), 2, (8,)), MLPVAE((4,), 2, (8,))
    state = {WRAPPERS[wrapper](name): value for name, value in source.state_dict().items()}
    target.load_state_dict(state)
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_weights_of_an_averaged_model_are_understood():
    source, target = MLPVAE((4,), 2, (8,)), MLPVAE((4,), 2, (8,))
    averaged = torch.optim.swa_utils.AveragedModel(source)
    target.load_state_dict(averaged.state_dict())
    assert torch.equal(target.reference(), source.reference())


def test_a_model_with_a_compiled_part_is_saved_and_loaded(tmp_path):
    model = MLPVAE((4,), 2, (8,))
    model.encoder = torch.compile(model.encoder, backend="eager")
    model.save(tmp_path / "model.pt")
    loaded = load(tmp_path / "model.pt")
    assert torch.equal(loaded.encoder.network[0].weight, model.encoder.network[0].weight)
    model.load_state_dict(loaded.state_dict())  # and back into the compiled one


def test_an_unknown_name_behind_a_prefix_is_still_refused():
    model = MLPVAE((4,), 2, (8,))
    state = {"module." + name: value for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"module\.extra is only in it"):
        model.load_state_dict({**state, "module.extra": torch.zeros(1)})
