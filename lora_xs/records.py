"""What a run leaves behind: `record.json`, three blocks and a status, written last and whole.

Its presence *is* "finished" (status `finished` or `diverged`); a run that failed or was stopped leaves the same content
as `attempt.json` and goes on from its newest checkpoint next time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lora_xs.atomic import write_json

Status = Literal["finished", "diverged", "failed", "cancelled"]
FINAL: tuple[Status, ...] = ("finished", "diverged")
SCHEMA = 1
RECORD, ATTEMPT = "record.json", "attempt.json"
COLLAPSED = "the answers collapsed to a constant"
"""Why a run is `diverged` that trained to its end: its last answers are all the same, and once were not."""


@dataclass
class Record:
    """One run's evidence.

    run: signature, spec, protocol, provenance, seed, command, started (UTC, ISO 8601), seconds, error, attempts
        (started and commit of each; started and seconds are those of all together).
    train: evaluations (a dict each), best, last, majority, steps, tokens, tokens_per_second, seconds (a phase each),
        peak_memory_mib, parameters (trainable, adapter, head, total), adapter_bytes, batches_digest, warnings.
    environment: versions, commit, model/tokenizer/data identities, hardware, threads, world size.
    """

    status: Status
    run: dict[str, Any]
    train: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def signature(self) -> str:
        """The run's twelve hex digits."""
        return str(self.run["signature"])

    @property
    def collapsed(self) -> bool:
        """Whether it trained to its end and fell back to one answer for every row; its scores are finite."""
        return self.status == "diverged" and (self.run.get("error") or {}).get("what") == COLLAPSED

    @property
    def scored(self) -> bool:
        """Whether its scores count: it finished, or collapsed. To leave a bad ending out would flatter its method."""
        return self.status == "finished" or self.collapsed


def write_record(folder: Path, record: Record) -> Path:
    """Write the record where its status belongs and return the file; a final record retires an earlier attempt's."""
    final = record.status in FINAL
    path = folder / (RECORD if final else ATTEMPT)
    write_json(path, asdict(record))
    if final:
        (folder / ATTEMPT).unlink(missing_ok=True)
    return path


def read_record(folder: Path) -> Record | None:
    """The finished record of `folder`, or None where there is none that is whole and of this schema."""
    return _read(folder / RECORD, FINAL)


def read_attempt(folder: Path) -> Record | None:
    """What the last failed or cancelled attempt left, or None."""
    return _read(folder / ATTEMPT, ("failed", "cancelled"))


def find_records(results: Path) -> Iterator[Record]:
    """Every finished record below `results`, in path order; folders without one are passed over."""
    for file in sorted(results.rglob(RECORD)):
        record = read_record(file.parent)
        if record is not None:
            yield record


def _read(path: Path, allowed: tuple[Status, ...]) -> Record | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**content)
        sound = record.schema == SCHEMA and record.status in allowed and bool(record.run["signature"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if sound else None
