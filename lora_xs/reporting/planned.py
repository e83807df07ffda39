"""Which runs stand behind an experiment's cells: composed once, then kept until a config or an experiment changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lora_xs.atomic import write_json
from lora_xs.cache import cache_root
from lora_xs.records import Record, find_records
from lora_xs.reporting.cells import Behind

HOUSE = Path(__file__).resolve().parents[2]
SOURCES = ("configs/**/*.yaml", "experiments/*.yaml", "lora_xs/spec/*.py", "lora_xs/sweeps/*.py")
"""What signatures follow from."""


def planned_runs(name: str, overrides: Sequence[str] = ()) -> list[Behind]:
    """The runs of an experiment, in its file's order. Raises UserError as `lora_xs.sweeps.grid.expand`."""
    folder = cache_root("plans")
    key = hashlib.sha256(json.dumps([_house(), name, list(overrides)]).encode()).hexdigest()[:24]
    kept = folder / f"{name}-{key}.json" if folder is not None else None
    if kept is not None and kept.is_file():
        try:
            return [Behind(*line) for line in json.loads(kept.read_text(encoding="utf-8"))]
        except (ValueError, TypeError):
            kept.unlink(missing_ok=True)
    from lora_xs.sweeps.grid import cells, load_experiment

    runs = [Behind(run.spec.signature, run.spec.seed, run.cell) for run in cells(load_experiment(name), overrides)]
    if kept is not None:
        write_json(kept, [[run.signature, run.seed, dict(run.cell)] for run in runs])
    return runs


def records_below(*folders: Path) -> dict[str, Record]:
    """Finished and diverged records by signature; of two with one signature, the later in path order."""
    return {record.signature: record for folder in folders for record in find_records(folder)}


@cache
def _house() -> str:
    """A hash of all that signatures follow from."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for file in sorted(HOUSE.glob(pattern)):
            digest.update(str(file.relative_to(HOUSE)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
