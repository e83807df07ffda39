"""A manifest: the runs of an array of jobs as JSON lines, `{"spec": …, "needs": [signatures]}`, and its slices.

Slice `I/N` of a manifest is its lines I, I + N, I + 2N, …, counted from 0: what one task runs, one after another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from lora_xs.atomic import write_text
from lora_xs.errors import UserError
from lora_xs.spec import RunSpec

T = TypeVar("T")


class Runnable(Protocol):
    """What a manifest says of a run; `lora_xs.sweeps.grid.PlannedRun` is one."""

    @property
    def spec(self) -> RunSpec:
        """The run."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Signatures of the runs that must be finished before it starts."""


@dataclass(frozen=True)
class Line:
    """A line of a manifest, read back."""

    spec: RunSpec
    needs: tuple[str, ...] = ()


def write_manifest(path: Path, runs: Sequence[Runnable]) -> None:
    """Write `runs` in their order; the file appears whole."""
    lines = [json.dumps({"spec": run.spec.to_json(), "needs": list(run.needs)}, ensure_ascii=False) for run in runs]
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_manifest(path: Path) -> list[Line]:
    """The lines of a manifest. Raises UserError naming file and line where one is missing or malformed."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read the manifest {path}: {error.strerror}; submit the sweep again") from error
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            content = json.loads(text)
            lines.append(Line(RunSpec.from_json(content["spec"]), tuple(map(str, content["needs"]))))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}:{number}: not a run's JSON ({error}); submit the sweep again") from error
    return lines


def parse_slice(text: str) -> tuple[int, int]:
    """`"I/N"` as (I, N). Raises UserError unless 0 ≤ I < N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"--slice={text} must be I/N with 0 ≤ I < N, e.g. --slice=0/4")
    return int(match[1]), int(match[2])


def take_slice(items: Sequence[T], index: int, count: int) -> list[T]:
    """Items `index`, `index + count`, …"""
    return list(items[index::count])
