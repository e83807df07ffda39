"""An interval for a median or mean over few seeds: the percentile bootstrap.

10,000 resamples of the runs, with replacement, drawn once for each n from one fixed seed: the same records give the
same interval, whatever else is in the table. Of three to five seeds it says how far the seeds at hand lie apart, and
little more: its coverage is below the nominal at such n.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

RESAMPLES = 10_000
SEED = 2405_17604
LEVEL = 95.0
LEAST = 3


def interval(values: Sequence[float], statistic: str) -> tuple[float, float] | None:
    """Bounds of the central LEVEL percent of the resampled statistic; None below LEAST values."""
    import numpy as np

    if len(values) < LEAST:
        return None
    drawn = np.asarray(values, dtype=float)[_draws(len(values))]  # [resamples, n]
    found = np.median(drawn, axis=1) if statistic == "median" else drawn.mean(axis=1)
    low, high = np.percentile(found, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


@cache
def _draws(n: int) -> Any:
    import numpy as np

    return np.random.default_rng([SEED, n]).integers(0, n, size=(RESAMPLES, n))
