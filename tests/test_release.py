"""One number and one address everywhere, written by one command; READMEs whose examples run."""

import datetime
import re
import shutil
import tomllib
from urllib.parse import urlsplit

import pytest
import release
from readme import blocks, run
from sources import PACKAGES, ROOT, folder, tracked

DAY = datetime.date(2030, 2, 3)


def project(package: str, root=ROOT) -> dict:
    path = root / folder(package).relative_to(ROOT) / "pyproject.toml"
    return tomllib.loads(path.read_text("utf-8"))["project"]


@pytest.fixture
def copy(tmp_path):
    """A copy of the files that a release is about."""
    for path in ROOT.glob("packages/*/*.*"):
        if not path.is_file():  # caches of tools
            continue
        (tmp_path / path.relative_to(ROOT).parent).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / path.relative_to(ROOT))
    for package in PACKAGES:
        path = folder(package) / "src" / package / "__init__.py"
        (tmp_path / path.relative_to(ROOT).parent).mkdir(parents=True)
        shutil.copyfile(path, tmp_path / path.relative_to(ROOT))
    (tmp_path / "docs").mkdir()
    for name in ("CITATION.cff", "pyproject.toml", "docs/getting-started.md"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def write(files):
    for path, text in files.items():
        path.write_text(text, "utf-8")


def test_one_version_everywhere():
    versions = {project(package)["version"] for package in PACKAGES}
    assert len(versions) == 1
    (version,) = versions
    for package in PACKAGES:
        module = (folder(package) / "src" / package / "__init__.py").read_text("utf-8")
        assert f'__version__ = "{version}"' in module, package
        assert re.search(
            rf"^## {re.escape(version)} \(", (folder(package) / "CHANGELOG.md").read_text(), re.M
        )
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_version_is_set_everywhere_at_once(copy):
    write(release.with_version(copy, "0.7.2", DAY))
    for package in PACKAGES:
        assert project(package, copy)["version"] == "0.7.2"
        changes = (copy / folder(package).relative_to(ROOT) / "CHANGELOG.md").read_text("utf-8")
        assert "## 0.7.2 (2030-02-03)" in changes
        assert "unreleased" not in changes
    needs = [r for r in project("geco_experiments", copy)["dependencies"] if "geco" in r]
    assert needs == [
        "geco-core>=0.7,<0.8",
        "geco-models>=0.7,<0.8",
        "geco-theory[report]>=0.7,<0.8",
    ]
    assert "version: 0.7.2\ndate-released: 2030-02-03\n" in (copy / "CITATION.cff").read_text()


@pytest.mark.parametrize("version", ["0.2", "v0.2.0", "0.2.0-1", ""])
def test_what_is_no_version_is_refused(copy, version):
    with pytest.raises(ValueError, match=r"a version such as 0\.2\.0"):
        release.with_version(copy, version, DAY)


def test_a_changelog_without_an_unreleased_heading_is_refused(copy):
    path = copy / "packages/geco-theory/CHANGELOG.md"
    path.write_text(path.read_text().replace("(unreleased)", "(2029-01-01)"))
    with pytest.raises(ValueError, match=r"geco-theory.*exactly one heading"):
        release.with_version(copy, "0.7.2", DAY)


def test_the_address_is_set_everywhere_at_once(copy):
    old, new = release.address(copy), "https://host.example/someone/geco"
    write(release.with_address(copy, new))
    assert release.address(copy) == new
    for path in (path for path in copy.rglob("*") if path.is_file()):
        assert old not in path.read_text("utf-8"), path
    for package in PACKAGES:
        assert all(url.startswith(new) for url in project(package, copy)["urls"].values())
    page = (copy / "docs/getting-started.md").read_text("utf-8")
    assert f"git+{new}#subdirectory=packages/geco-core" in page
    assert "no public address yet" not in page
    assert page.count("\n\n## A first run") == 1


def test_a_placeholder_stays_marked_as_one(copy):
    write(release.with_address(copy, "https://example.org/another"))
    page = (copy / "docs/getting-started.md").read_text("utf-8")
    assert "no public address yet; `https://example.org/another` stands for it" in page


def test_there_is_one_address():
    address = release.address(ROOT)
    for package in PACKAGES:
        urls = project(package)["urls"]
        assert urls["Repository"] == address
        assert all(url == address or url.startswith(f"{address}/") for url in urls.values())
    assert f'repository-code: "{address}"\n' in (ROOT / "CITATION.cff").read_text("utf-8")
    if not release.is_placeholder(address):
        return
    for path in tracked("*.md", "*.toml", "*.cff"):  # no other placeholder is left behind
        for found in re.findall(r"https://example\.org[^\s)\"'>`]*", path.read_text("utf-8")):
            assert re.match(rf"{re.escape(address)}(?:[/#]|$)", found), f"{path}: {found}"


def test_every_address_in_links_is_one():
    for path in tracked("*.md"):
        for found in re.findall(r"\]\((\w+:[^)\s]*)\)", path.read_text("utf-8")):
            parts = urlsplit(found)
            assert parts.scheme == "https", f"{path}: {found}"
            assert "." in parts.netloc, f"{path}: {found}"
            assert "//" not in parts.path, f"{path}: {found}"


@pytest.mark.parametrize("url", ["http://host.example/geco", "host.example/geco", "https://x/"])
def test_what_is_no_address_is_refused(copy, url):
    with pytest.raises(ValueError, match=r"an address such as https"):
        release.with_address(copy, url)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_examples_of_the_readme_run(package):
    page = folder(package) / "README.md"
    assert blocks(page)
    assert run(page) == len(blocks(page))


def test_the_examples_of_the_first_page_run():
    assert run(ROOT / "README.md") == len(blocks(ROOT / "README.md")) > 0


@pytest.mark.parametrize("package", PACKAGES)
def test_changelogs_have_one_coming_version_and_nothing_without_one(package):
    text = (folder(package) / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert all(re.fullmatch(r"\S+ \((?:unreleased|\d{4}-\d\d-\d\d)\)", h) for h in headings)
    assert [h for h in headings if h.endswith("(unreleased)")] in ([], headings[:1])
