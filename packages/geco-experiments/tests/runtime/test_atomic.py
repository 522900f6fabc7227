import os
import stat

import pytest

from geco_experiments.runtime.atomic import PREFIX, remove_leftovers, write_atomic, writing
from geco_experiments.runtime.errors import RunError


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"one")
    write_atomic(path, memoryview(b"two"))
    assert path.read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = "the disk is full; nothing there was changed"
    with pytest.raises(RunError, match=message), writing("the thing", path):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    message = "a part of the path is a file"
    with pytest.raises(RunError, match=message), writing("the run", tmp_path / "file"):
        (tmp_path / "file" / "sub").mkdir(parents=True)


def test_what_torch_makes_of_a_full_disk(tmp_path):
    with (
        pytest.raises(RunError, match=r"could not be written to .*: enforce fail"),
        writing("the model", tmp_path),
    ):
        raise RuntimeError("enforce fail\nand a long trace")


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / f"{PREFIX}run.nc-abc").touch()
    (tmp_path / "mine.tmp").touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tmp"]
