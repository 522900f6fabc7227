"""Copy each script out of the built pages into an empty folder and run it, as a reader would.

    python tools/recipes.py docs/_build/html/frameworks.html docs/_build/html/getting-started.html

What is copied is what the copy button of the page copies. Blocks that are no whole script (they
have no `__main__`) are left out.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from built_site import Block, Page

MOST_LINES = 5


def scripts(page: Path) -> list[Block]:
    """The whole scripts of a built page."""
    return [
        block
        for block in Page(page).blocks
        if block.language == "python" and 'if __name__ == "__main__":' in block.text
    ]


def run(block: Block) -> str:
    """Run a script in an empty folder; returns what it printed last.

    Raises:
        RuntimeError: if it fails, or if what it changes in a script is more than five lines.
    """
    title = block.text.strip().splitlines()[0].strip('"')
    if len(block.marked) > MOST_LINES:
        raise RuntimeError(f"{title} more than {MOST_LINES} lines are marked: {block.marked}")
    with tempfile.TemporaryDirectory() as empty:
        (Path(empty) / "script.py").write_text(block.text, "utf-8")
        done = subprocess.run(
            [sys.executable, "script.py"],
            cwd=empty,
            env={**os.environ, "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
            timeout=600,
        )
    if done.returncode:
        raise RuntimeError(f"{title} failed:\n{done.stderr[-4000:]}")
    return f"{title} {len(block.marked)} lines; {done.stdout.strip().splitlines()[-1]}"


if __name__ == "__main__":
    found = [block for name in sys.argv[1:] for block in scripts(Path(name))]
    if not found:
        sys.exit("error: no script found")
    for block in found:
        print(run(block), flush=True)
