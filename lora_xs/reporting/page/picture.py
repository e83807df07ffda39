"""A drawn figure inside the page: a PNG of few colours in a data address, with words for those who cannot see it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import styled

DPI = 150
COLOURS = 128
"""Figures are flat areas and thin lines: an adaptive palette of so many colours is not told from the whole."""


@dataclass(frozen=True)
class Shown:
    """name: of the picture's file elsewhere. source: `data:image/png;base64,…`. width, height: in pixels."""

    name: str
    caption: str
    source: str
    width: int
    height: int


def shown(picture: Picture) -> Shown:
    """The picture as the page embeds it; the same bytes from the same figure."""
    from PIL import Image

    raw, small = io.BytesIO(), io.BytesIO()
    with styled():
        picture.figure.savefig(raw, format="png", dpi=DPI, metadata={"Software": None})
    image = Image.open(raw).convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(small, format="PNG", optimize=True)
    data = base64.b64encode(small.getvalue()).decode("ascii")
    return Shown(picture.name, picture.caption, f"data:image/png;base64,{data}", *image.size)
