"""A picture as PNG for screens: few colours, so that a page of a hundred of them stays small; the same bytes always."""

from __future__ import annotations

import io

from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import styled

DPI = 140
COLOURS = 128
"""By largest coverage, so that no colour of a scale is far from its own (measured: 19 of 255 at most); a palette by
frequency spends itself on the edges of letters."""


def png_of(picture: Picture) -> bytes:
    """PNG with a palette, 980 pixels wide, without times and versions in it."""
    from PIL import Image

    whole, small = io.BytesIO(), io.BytesIO()
    with styled():
        picture.figure.savefig(
            whole, format="png", dpi=DPI, metadata={"Software": None}, pil_kwargs={"compress_level": 1}
        )
    with Image.open(whole) as image:
        flat = image.convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    flat.save(small, format="png", optimize=True)
    return small.getvalue()
