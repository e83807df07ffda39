"""What a figure comes out as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Captioned(Protocol):
    """What is known of a picture without looking at it; `Picture` says what each is."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def experiment(self) -> str: ...
    @property
    def caption(self) -> str: ...


@dataclass(frozen=True)
class Picture:
    """A drawn figure. name: of its files, without ending. caption: what it shows, in words, for readers and for those
    who cannot see it."""

    name: str
    kind: str
    experiment: str
    caption: str
    figure: Figure
