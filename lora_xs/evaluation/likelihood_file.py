"""A test's likelihoods as JSON lines, the header of a file of completions first; written at once, whole or not there.

    {"kind": "header", "version": 1, "test": …, "settings": …, "rows": …, "prompts": …, "golds": …, "decoding": null}
    {"id": …, "gold": …, "choices": […], "log_likelihoods": […], "tokens": […]}

A log-likelihood that is not finite is null.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_xs.atomic import write_text
from lora_xs.evaluation.likelihood import ChoiceScores

logger = logging.getLogger(__name__)


def write_likelihoods(file: Path, header: dict[str, Any], scores: Sequence[ChoiceScores]) -> None:
    """The file of a test that is done."""
    rows = [asdict(one) | {"log_likelihoods": _plain(one.log_likelihoods)} for one in scores]
    write_text(file, "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in [header, *rows]))


def read_likelihoods(file: Path, header: dict[str, Any]) -> list[ChoiceScores] | None:
    """What an earlier attempt wrote under the same header; None where there is no such file, or it is damaged."""
    if not file.is_file():
        return None
    try:
        found, *rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if found == header and len(rows) == header["rows"]:
            return [_of(row) for row in rows]
        problem: object = "made for other questions or settings"
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        problem = error
    logger.warning("%s is not used (%s) and is made again", file, problem)
    return None


def _of(row: dict[str, Any]) -> ChoiceScores:
    values = tuple(math.nan if value is None else float(value) for value in row["log_likelihoods"])
    return ChoiceScores(row["id"], row["gold"], tuple(row["choices"]), values, tuple(row["tokens"]))


def _plain(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
