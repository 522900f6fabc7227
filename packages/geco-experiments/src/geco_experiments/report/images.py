"""Figures inside the page: their bytes as text, and how wide they stand."""

import base64
import re
from typing import NamedTuple

from geco_experiments.studies.common.style import WIDTH

__all__ = ["SVG", "Image", "embedded"]

SVG = "image/svg+xml"
_WIDTH = re.compile(rb"<svg[^>]*\swidth=\"([\d.]+)pt\"")
POINTS = 72  # in an inch


class Image(NamedTuple):
    """An image that holds its own bytes, and its share of the page's width in per cent."""

    source: str
    share: float


def embedded(content: bytes, media_type: str) -> Image:
    """An image for the page.

    A figure of this package takes the share of the page that it has of the widest, so that the
    type is of one size in all of them; other pictures take the whole width.
    """
    text = base64.b64encode(content).decode("ascii")
    found = _WIDTH.search(content[:4096]) if media_type == SVG else None
    width = 1.0 if found is None else float(found[1]) / (WIDTH * POINTS)
    return Image(f"data:{media_type};base64,{text}", round(100 * min(1.0, width), 1))
