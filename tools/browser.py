"""Look at every page of the built site in a headless browser, as wide as a desk and as a phone.

    python tools/browser.py docs/_build/html --shots pictures

Reported are errors on the console, files that did not load, addresses outside of the site that a
page asks for by itself, formulas that were not set, and content that is wider than the window.
Pictures of the pages are kept where `--shots` says; looking at them is left to people.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

WIDTHS = {"desktop": 1280, "phone": 390}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: what is wider than the window and is in no box that scrolls by itself, such as a table's; that
#: the whole of the text can be scrolled sideways is no excuse
OVERFLOW = """() => {
  const wide = [], edge = document.documentElement.clientWidth + 1;
  const scrolls = element => {
    for (let e = element; e && !e.matches("article, main, .content, body"); e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.position === "fixed" || style.display === "none") return true;
      if (/(auto|scroll|hidden|clip)/.test(style.overflowX) &&
          e.getBoundingClientRect().right <= edge) return true;
    }
    return false;
  };
  for (const element of document.querySelectorAll("main *, article *, .content *")) {
    const box = element.getBoundingClientRect();
    if (box.width > 1 && box.height > 1 && box.right > edge && !scrolls(element))
      wide.push(element.tagName.toLowerCase() + ": " + element.textContent.trim().slice(0, 60));
  }
  if (document.documentElement.scrollWidth > edge) wide.unshift("the page itself");
  return wide.slice(0, 3);
}"""
#: formulas that MathJax refused, and TeX that it has not seen
FORMULAS = r"""() => {
  const found = [...document.querySelectorAll("[data-mml-node='merror'], mjx-merror")]
    .map(e => "refused: " + (e.getAttribute("data-mjx-error") || e.textContent));
  const walk = node => {
    if (node.nodeType === 3) {
      const tex = node.textContent.match(/\\\(|\\\[|\$\$|\\(?:frac|kappa|lambda|beta|sum)\b/);
      if (tex) found.push("not set: " + node.textContent.trim().slice(0, 60));
    } else if (node.nodeType === 1 &&
               !/^(CODE|PRE|SCRIPT|STYLE|TEXTAREA|SVG|MJX-CONTAINER)$/i.test(node.tagName))
      node.childNodes.forEach(walk);
  };
  walk(document.body);
  return found.slice(0, 5);
}"""


def pages(site: Path) -> list[Path]:
    """The pages that people read; those that Sphinx shows of sources are left out."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def faults(page: Page, path: Path, site: Path, shot: Path | None) -> Iterator[str]:
    """What is wrong with one page at the present width."""
    heard: list[str] = []
    page.on("console", lambda m: heard.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: heard.append(f"script: {error}"))
    page.on("requestfailed", lambda request: heard.append(f"not loaded: {request.url}"))
    page.on(
        "request",
        lambda request: (
            heard.append(f"from outside: {request.url}")
            if not request.url.startswith(("file:", "data:", "blob:"))
            else None
        ),
    )
    page.goto(path.as_uri())
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.wait_for_timeout(50)
    heard += page.evaluate(FORMULAS)
    heard += [f"too wide: {text}" for text in page.evaluate(OVERFLOW)]
    if shot:
        shot.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=shot, full_page=True)
    yield from dict.fromkeys(heard)


def look(browser: Browser, site: Path, shots: Path | None) -> int:
    """Look at all pages at all widths, print what is wrong; returns how many faults there are."""
    count = 0
    for name, width in WIDTHS.items():
        context = browser.new_context(viewport={"width": width, "height": 900})
        for path in pages(site):
            where = path.relative_to(site)
            page = context.new_page()
            shot = shots / name / where.with_suffix(".png") if shots else None
            for fault in faults(page, path, site, shot):
                print(f"{where} ({name}): {fault}")
                count += 1
            page.close()
        context.close()
    return count


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("site", type=Path, help="the folder of the built site")
    parser.add_argument("--shots", type=Path, help="where to keep pictures of the pages")
    parser.add_argument("--browser", help="the browser's program; else Chromium, if it is found")
    args = parser.parse_args(argv)
    program = args.browser or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print(
            f"error: no browser found ({', '.join(BROWSERS)}); name one with --browser",
            file=sys.stderr,
        )
        return 2
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        count = look(browser, args.site.resolve(), args.shots)
        browser.close()
    print(
        f"{len(pages(args.site))} pages at {len(WIDTHS)} widths: {count} faults", file=sys.stderr
    )
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
