"""What `target_modules` says: suffixes of whole path parts, or a single regular expression, as PEFT reads them."""

from __future__ import annotations

from collections.abc import Sequence

MARKS = "*|()[]\\^$+?"


def pattern_of(target_modules: Sequence[str]) -> str | None:
    """The regular expression, where the single entry has a mark of one; None where these are suffixes."""
    single = target_modules[0] if len(target_modules) == 1 else ""
    return single if any(mark in single for mark in MARKS) else None
