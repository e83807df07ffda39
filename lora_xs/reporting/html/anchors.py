"""Names of places on the page, so that a single number can be cited: made of what is there, not of where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable


def slug(text: str) -> str:
    """`text` with nothing in it but letters, digits, `_`, `.` and `-`; whatever markup it had is gone."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-")


class Anchors:
    """Hands out each name once; the second of one name ends in `-2`."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, words: Iterable[str]) -> str:
        """An anchor of `words`, e.g. `table01_glue--roberta-large-lora_xs-16-sst2`."""
        wanted = "--".join(filter(None, map(slug, words))) or "x"
        name, tries = wanted, 1
        while name in self._taken:
            tries += 1
            name = f"{wanted}-{tries}"
        self._taken.add(name)
        return name
