"""Which parameters are the head's: the part trained whole, at its own rate, and not counted as the method's."""

from __future__ import annotations

from collections.abc import Sequence


def is_head(name: str, head: Sequence[str]) -> bool:
    """Whether a parameter lies inside a module so named, e.g. `base_model.model.classifier.weight` in `classifier`."""
    return not set(name.split(".")[:-1]).isdisjoint(head)
