from pathlib import Path

import pytest

from geco_theory.report import writing


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "x.txt"
    writing.write_atomically(target, b"one")
    assert target.read_bytes() == b"one"

    def fails(self: Path, data: bytes) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="no space"):
        writing.write_atomically(target, b"two")
    assert target.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
