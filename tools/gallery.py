"""Run the notebooks of the gallery in place: their outputs are part of the repository.

    python tools/gallery.py                       # all of them
    python tools/gallery.py docs/gallery/mnist.ipynb

What differs between two runs without a reason (times, progress, warnings) is not kept. The picture
of the cell with the tag `picture` is written beside the notebooks, for the page that lists them.
"""

import base64
import io
import os
import sys
import time
from pathlib import Path

import nbformat
from PIL import Image

WIDTH, COLOURS = 600, 64
FOLDER = Path(__file__).parents[1] / "docs" / "gallery"


def picture(path: Path) -> bytes:
    """The picture that stands for a notebook, as a small PNG.

    Raises:
        ValueError: if it has no cell of the tag `picture`, or several, or that cell no picture.
    """
    found = [
        output["data"]["image/png"]
        for cell in nbformat.read(path, as_version=4).cells
        if "picture" in cell.metadata.get("tags", ())
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    if len(found) != 1:
        raise ValueError(f"{path.name}: one picture of a cell tagged `picture`, not {len(found)}")
    whole = Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGB")
    whole.thumbnail((WIDTH, 2 * WIDTH), Image.Resampling.LANCZOS)
    small = io.BytesIO()
    whole.quantize(COLOURS).save(small, "PNG", optimize=True)
    return small.getvalue()


def run(path: Path) -> float:
    """Execute a notebook in place; returns the seconds that it took."""
    from nbclient import NotebookClient

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
    (path.parent / "pictures").mkdir(exist_ok=True)
    (path.parent / "pictures" / f"{path.stem}.png").write_bytes(picture(path))
    return seconds


if __name__ == "__main__":
    os.environ.pop("MPLBACKEND", None)  # the notebook's own, which keeps the pictures
    total = 0.0
    for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        seconds = run(path)
        total += seconds
        print(f"{path.name}: {seconds:.0f} s", flush=True)
    print(f"together {total:.0f} s")
