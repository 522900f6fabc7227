"""The commit that a result came from, and whether the tree was that of the commit."""

import subprocess

import pytest

from geco_experiments.results import provenance


@pytest.fixture
def tree(tmp_path, monkeypatch):
    file = tmp_path / "src/package/results/provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(file))
    return file


def test_a_clean_tree_has_its_commit(tree):
    assert len(provenance.git_commit()) == 40


def test_changes_and_new_sources_make_it_dirty(tree):
    new = tree.parent.parent / "new.py"
    new.write_text("")
    assert provenance.git_commit().endswith("-dirty")
    new.unlink()
    tree.write_text("changed")
    assert provenance.git_commit().endswith("-dirty")
