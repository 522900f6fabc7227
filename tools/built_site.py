"""Check a built site without a browser: dead links, missing files, formulas that were not set.

    python tools/built_site.py docs/_build/html

Links to other sites are not followed, but nothing that a page loads by itself may come from one:
the site works without a network.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: elements whose text is shown as it is written
VERBATIM = {"code", "pre", "script", "style", "textarea", "title"}
VOID = {
    "area",
    "base",
    "br",
    "col",
    "embed",
    "hr",
    "img",
    "input",
    "link",
    "meta",
    "source",
    "wbr",
}
TEX = re.compile(r"\$\$|\\(?:[()\[\]]|[a-zA-Z]{2,})")


@dataclass
class Block:
    """One block of highlighted code."""

    language: str
    """The name of its lexer, such as `python`."""
    text: str = ""
    """The code, as the copy button takes it."""
    marked: list[str] = field(default_factory=list)
    """The lines that are marked as those that change."""


class Page(HTMLParser):
    """One page: what it links to, what it loads, its anchors, code and stray formulas."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.blocks: list[Block] = []
        self.stray: list[str] = []
        self._open: list[tuple[str, frozenset[str]]] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collects addresses, and where code begins."""
        values = {name: value or "" for name, value in attributes}
        classes = frozenset(values.get("class", "").split())
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") in {"stylesheet", "icon"}:
            self.loads.append(values["href"])
        if tag in {"img", "script", "iframe", "source"} and "src" in values:
            self.loads.append(values["src"])
        for name in classes:
            if tag == "div" and name.startswith("highlight-"):
                self.blocks.append(Block(name.removeprefix("highlight-")))
        if tag == "span" and "hll" in classes:
            self.blocks[-1].marked.append("")
        if tag not in VOID:
            self._open.append((tag, classes))

    def handle_endtag(self, tag: str) -> None:
        """Closes what is open, and what was left open within it."""
        while self._open and any(open_[0] == tag for open_ in self._open):
            if self._open.pop()[0] == tag:
                break

    def handle_data(self, data: str) -> None:
        """Collects code, and TeX outside of formulas."""
        tags = {tag for tag, _ in self._open}
        classes = frozenset[str]().union(*(classes for _, classes in self._open))
        if "pre" in tags and self.blocks:
            self.blocks[-1].text += data
            if "hll" in classes:
                self.blocks[-1].marked[-1] += data
        elif not tags & VERBATIM and "math" not in classes and TEX.search(data):
            self.stray.append(data.strip())


def pages(site: Path) -> dict[Path, Page]:
    """The pages of a site, read."""
    return {path: Page(path) for path in sorted(site.resolve().rglob("*.html"))}


def faults(site: Path) -> Iterator[str]:
    """What is wrong, in a line each."""
    read = pages(site)
    for path, page in read.items():
        where = path.relative_to(site.resolve())
        for text in page.stray:
            yield f"{where}: a formula is not set: {text[:80]!r}"
        for target in page.loads:
            parts = urlsplit(target)
            if parts.scheme == "data":
                continue
            if parts.netloc:
                yield f"{where}: loads {target} from another place"
            elif not (path.parent / unquote(parts.path)).exists():
                yield f"{where}: {target} is not there"
        for target in page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not goal.exists():
                yield f"{where}: the link {target} leads nowhere"
            elif goal in read and unquote(parts.fragment) not in {"", *read[goal].anchors}:
                yield f"{where}: {target} names no place of that page"


def main(argv: list[str]) -> int:
    """The command line; returns the exit status."""
    found = [fault for name in argv for fault in faults(Path(name))]
    for fault in found:
        print(fault)
    return 1 if found or not argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
