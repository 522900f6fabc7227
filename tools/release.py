"""Number, date and address of a release, written everywhere at once.

    python tools/release.py version 0.2.0
    python tools/release.py address https://host.example/owner/geco

`version` dates the changelogs, so it comes last before the tag. Nothing is written unless every
place was found.
"""

import argparse
import datetime
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("geco-core", "geco-models", "geco-theory", "geco-experiments")
#: a line that is true only as long as the address is a placeholder
UNTIL_THEN = re.compile(r"^.*<!-- until there is an address -->\n+", re.MULTILINE)
VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
UNRELEASED = re.compile(r"^## (\S+) \(unreleased\)$", re.MULTILINE)


def address(root: Path) -> str:
    """The project's address: `tool.geco.address` of the repository's pyproject.toml."""
    text = (root / "pyproject.toml").read_text("utf-8")
    return str(tomllib.loads(text)["tool"]["geco"]["address"])


def is_placeholder(url: str) -> bool:
    """Whether an address is one of those that stand for others (RFC 2606)."""
    return url.startswith("https://example.org/")


def replace(text: str, pattern: str, new: str, path: Path) -> str:
    """Replace what must be there.

    Raises:
        ValueError: if it is not.
    """
    changed, count = re.subn(pattern, new, text, flags=re.MULTILINE)
    if not count:
        raise ValueError(f"{path}: nothing like {pattern!r} is there")
    return changed


def with_version(root: Path, version: str, day: datetime.date) -> dict[Path, str]:
    """All files that name the version, with another one.

    Raises:
        ValueError: if the version is no version, or a changelog has no unreleased heading.
    """
    if not VERSION.fullmatch(version):
        raise ValueError(f"a version such as 0.2.0 or 0.2.0rc1 is needed, got {version!r}")
    major, minor = map(int, version.split(".")[:2])
    siblings = rf"\g<1>>={major}.{minor},<{major}.{minor + 1}"
    files: dict[Path, str] = {}
    for name in PACKAGES:
        folder, module = root / "packages" / name, name.replace("-", "_")
        path = folder / "pyproject.toml"
        text = replace(
            path.read_text("utf-8"), r'^version = ".*"$', f'version = "{version}"', path
        )
        if name == "geco-experiments":
            ranged = r'^(    "geco-(?:core|models|theory)(?:\[\w+\])?)>=[^"]*'
            text = replace(text, ranged, siblings, path)
        files[path] = text
        path = folder / "src" / module / "__init__.py"
        pattern = r'^__version__ = ".*"$'
        files[path] = replace(path.read_text("utf-8"), pattern, f'__version__ = "{version}"', path)
        path = folder / "CHANGELOG.md"
        text = path.read_text("utf-8")
        if len(UNRELEASED.findall(text)) != 1:
            raise ValueError(
                f"{path}: exactly one heading such as '## {version} (unreleased)' is needed, with "
                f"the changes below it"
            )
        files[path] = UNRELEASED.sub(f"## {version} ({day})", text)
    path = root / "CITATION.cff"
    text = replace(path.read_text("utf-8"), r"^version: .*$", f"version: {version}", path)
    text = re.sub(r"^date-released: .*\n", "", text, flags=re.MULTILINE)
    files[path] = replace(text, r"^(version: .*)$", rf"\g<1>\ndate-released: {day}", path)
    return files


def with_address(root: Path, url: str) -> dict[Path, str]:
    """All files that name the project's address, with another one.

    Raises:
        ValueError: if it is not an https address without a slash at its end.
    """
    if not re.fullmatch(r"https://[\w.-]+(?:/[\w.-]+)+", url):
        raise ValueError(f"an address such as https://host.example/owner/geco is needed: {url!r}")
    old = address(root)
    patterns = ("*.md", "*.toml", "*.cff", "docs/**/*.md", "packages/*/*.md", "packages/*/*.toml")
    found = (path for pattern in patterns for path in root.glob(pattern))
    texts = {path: path.read_text("utf-8") for path in found}
    changed = {path: text.replace(old, url) for path, text in texts.items() if old in text}
    if is_placeholder(url):
        return changed
    return {path: UNTIL_THEN.sub("", text) for path, text in changed.items()}


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("version", help="set the version and date the changelogs").add_argument("to")
    verbs.add_parser("address", help="set the project's address").add_argument("to")
    args = parser.parse_args(argv)
    try:
        if args.verb == "version":
            files = with_version(ROOT, args.to, datetime.date.today())
        else:
            files = with_address(ROOT, args.to)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, text in files.items():
        path.write_text(text, "utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
