"""What a figure comes out as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A drawn figure. name: of its files, without ending. caption: what it shows, in words, for readers and for those
    who cannot see it."""

    name: str
    kind: str
    experiment: str
    caption: str
    figure: Figure
