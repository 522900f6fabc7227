"""Run the notebooks of the gallery in place: their outputs are part of the repository.

    python tools/gallery.py                       # all of them
    python tools/gallery.py docs/gallery/mnist.ipynb

What differs between two runs without a reason (times, progress, warnings) is not kept.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "gallery"


def run(path: Path) -> float:
    """Execute a notebook in place; returns the seconds that it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}}).execute()
    seconds = time.monotonic() - start
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    nbformat.write(notebook, path)
    return seconds


if __name__ == "__main__":
    os.environ.pop("MPLBACKEND", None)  # the notebook's own, which keeps the pictures
    total = 0.0
    for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        seconds = run(path)
        total += seconds
        print(f"{path.name}: {seconds:.0f} s", flush=True)
    print(f"together {total:.0f} s")
