"""Which rows a subset has when no seed may choose them: the same ones for every run."""

from __future__ import annotations

import hashlib


def drawn_rows(label: str, rows: int, n: int) -> list[int]:
    """The `n` indices of `range(rows)` whose sha256 of `"<label>:<index>"` is smallest, in their old order.

    A smaller draw lies inside a larger one; `n` above `rows` gives all of them.
    """
    ranks = sorted(range(rows), key=lambda index: hashlib.sha256(f"{label}:{index}".encode()).digest())
    return sorted(ranks[:n])
