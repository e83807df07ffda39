"""What a page knows of a figure: its bytes, and the words for those who cannot see it."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Drawn:
    """A figure as bytes. name, kind, experiment, caption: the picture's. alt: what it shows and what is missing in it,
    for those who cannot see it. width, height: pixels."""

    name: str
    kind: str
    experiment: str
    caption: str
    alt: str
    png: bytes

    @property
    def width(self) -> int:
        """Pixels."""
        return int(struct.unpack(">I", self.png[16:20])[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(struct.unpack(">I", self.png[20:24])[0])
