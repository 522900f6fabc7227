import pickle

import pytest
import torch

from geco_experiments.config import replace
from geco_experiments.runtime.errors import RunError
from geco_experiments.training import checkpoints
from geco_experiments.training.checkpoints import Checkpoint

DATA = "0123456789abcdef"  # the fingerprint of some data


def example(step=3):
    return Checkpoint(
        step=step,
        model={"weight": torch.randn(4, 4)},
        optimizer={"state": {0: {"exp_avg": torch.randn(4)}}, "param_groups": [{"lr": 0.1}]},
        objective={"log_multiplier": torch.randn(1)},
        noise={"latents": torch.Generator().get_state()},
        history=torch.randn(5, 2),
        draw_history=None,
        seconds=1.5,
    )


def test_round_trip(tmp_path, tiny):
    path, written = tmp_path / "checkpoint.pt", example()
    checkpoints.write(path, tiny(), DATA, written)
    read = checkpoints.read(path, tiny(), DATA)
    assert read.step == 3
    assert torch.equal(read.model["weight"], written.model["weight"])
    assert torch.equal(read.history, written.history)
    assert torch.equal(read.noise["latents"], written.noise["latents"])


def test_execution_may_differ(tmp_path, tiny):
    path = tmp_path / "checkpoint.pt"
    checkpoints.write(path, tiny(), DATA, example())
    other = replace(tiny(), {"execution.checkpoint_seconds": 9.0})
    assert checkpoints.read(path, other, DATA).step == 3


@pytest.mark.parametrize("keep", [0, 1, 10, 28, 29, 61, 500, -1])
def test_truncated(tmp_path, tiny, keep):
    path = tmp_path / "checkpoint.pt"
    checkpoints.write(path, tiny(), DATA, example())
    content = path.read_bytes()[:keep]
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"is (damaged|truncated).* move it away"):
        checkpoints.read(path, tiny(), DATA)
    assert path.read_bytes() == content


def test_a_flipped_bit_in_a_tensor_is_noticed(tmp_path, tiny):
    path, written = tmp_path / "checkpoint.pt", example()
    checkpoints.write(path, tiny(), DATA, written)
    content = bytearray(path.read_bytes())
    place = content.find(written.history.numpy().tobytes())
    assert place > 0
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        checkpoints.read(path, tiny(), DATA)


def test_foreign_files_are_not_even_opened(tmp_path, tiny):
    trap = tmp_path / "trapped"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    path = tmp_path / "checkpoint.pt"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(RunError, match="was not written by this program"):
        checkpoints.read(path, tiny(), DATA)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(RunError, match="was not written by this program"):
        checkpoints.read(path, tiny(), DATA)
    assert not trap.exists()
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match="cannot be read"):
        checkpoints.read(path, tiny(), DATA)


def test_another_configuration_and_another_version(tmp_path, tiny, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    checkpoints.write(path, tiny(), DATA, example())
    with pytest.raises(RunError, match="another configuration"):
        checkpoints.read(path, tiny(seed=1), DATA)
    monkeypatch.setattr(checkpoints, "VERSION", 3)
    with pytest.raises(RunError, match="format version 2, this release reads 3"):
        checkpoints.read(path, tiny(), DATA)


def test_a_part_is_missing(tmp_path, tiny):
    path = tmp_path / "checkpoint.pt"

    class Older:
        step = 3

        def _asdict(self):
            return {"step": 3}

    checkpoints.write(path, tiny(), DATA, Older())
    with pytest.raises(RunError, match="lacks a part or holds a wrong one"):
        checkpoints.read(path, tiny(), DATA)


def test_other_data_than_before(tmp_path, tiny):
    path = tmp_path / "checkpoint.pt"
    checkpoints.write(path, tiny(), DATA, example())
    with pytest.raises(RunError, match=r"belongs to a run on other data than those of digits now"):
        checkpoints.read(path, tiny(), "f" * 16)


def test_a_foreign_body_under_a_valid_checksum(tmp_path, tiny):
    path = tmp_path / "checkpoint.pt"
    body = b"no state of anything"
    path.write_bytes(checkpoints._header(body) + body)
    with pytest.raises(RunError, match="holds no state of a run"):
        checkpoints.read(path, tiny(), DATA)
