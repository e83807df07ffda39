"""Which way a score is better."""

from __future__ import annotations

LOWER_IS_BETTER = ("response_loss",)


def better(metric: str, new: float, old: float) -> bool:
    """Whether `new` beats `old` in `metric`; an equal score does not."""
    return new < old if metric in LOWER_IS_BETTER else new > old
