"""Every link of every page leads somewhere, and every file that is named exists."""

import re
from pathlib import Path

import pytest
from release import address
from sources import PACKAGES, ROOT, folder, tracked

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*?)\s*$|^\(([\w-]+)\)=$", re.MULTILINE)
CODE_BLOCK = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
#: a file of the repository as prose and docstrings name it: `docs/models.md`, `noxfile.py`
NAMED = re.compile(
    r"(?<![\w/.<*{-])((?:[\w.-]+/)*[\w-]+\.(?:md|py|toml|yaml|cff|ipynb))(?![\w/*-])"
)
#: files that the reader writes or receives, or that belong to another project
OTHERS = {
    "results.md",
    "first.py", "conf.py", "__init__.py", "__main__.py", "setup.py", "train.py", "conftest.py",
    "mine.py", "pyproject.toml", "dataset.py", "script.py", "your_script.py",
    "gqn/generator.py",
}  # fmt: skip


def pages() -> list[Path]:
    return [path for path in tracked("*.md") if path.name != "LICENSE.md"]


def texts() -> list[Path]:
    """Pages, and sources with the docstrings and comments in them."""
    return [*pages(), *(path for path in tracked("*.py", "*.toml") if "tests" not in path.parts)]


HOME = address(ROOT)


def in_repository(target: str) -> Path | None:
    """The file that an absolute link to the repository's pages is about."""
    found = re.match(rf"{re.escape(HOME)}/(?:blob|tree)/main/([^#]+)", target)
    return ROOT / found[1] if found else None


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings can be linked by, as GitHub and MyST make them."""
    found = set()
    for heading, label in HEADING.findall(CODE_BLOCK.sub("", page.read_text("utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(label or re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page):
    text = CODE_BLOCK.sub("", page.read_text("utf-8"))
    missing = []
    for target in LINK.findall(text):
        file, _, fragment = target.partition("#")
        goal = in_repository(target) or (page if not file else page.parent / file)
        if target.startswith(("http://", "https://", "mailto:")) and not in_repository(target):
            continue
        if not goal.exists() or (
            fragment and goal.suffix == ".md" and fragment not in anchors(goal)
        ):
            missing.append(target)
    assert not missing


@pytest.mark.parametrize("path", texts(), ids=name)
def test_named_files_exist(path):
    places = [ROOT, *path.parents[: len(path.relative_to(ROOT).parts)]]
    known = {other.name for other in tracked()}
    missing = set()
    for mention in NAMED.findall(path.read_text("utf-8")):
        if mention in OTHERS:
            continue
        if "/" not in mention:
            exists = mention in known
        else:
            # as seen from the root, from any folder above the file, or within a package
            exists = any((place / mention).exists() for place in places) or any(
                str(other).endswith(f"/{mention}") for other in tracked()
            )
        if not exists:
            missing.add(mention)
    assert not missing


def test_nothing_is_said_to_lie_outside_the_repository():
    absolute = re.compile(r"(?<![\w.:/])/(?:home|root|work|tmp|opt|Users)/\w")
    for path in [*texts(), *tracked("*.cff", "*.yaml")]:
        assert not absolute.search(path.read_text("utf-8")), path


@pytest.mark.parametrize("package", PACKAGES)
def test_links_of_package_readmes_work_on_an_index_page(package):
    text = CODE_BLOCK.sub("", (folder(package) / "README.md").read_text("utf-8"))
    assert [target for target in LINK.findall(text) if "://" not in target] == []
