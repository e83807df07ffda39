"""Two runs' identities, key by key: why their signatures differ."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lora_xs.errors import UserError
from lora_xs.records import read_attempt, read_record
from lora_xs.spec import RunSpec, canonical_json, difference

SIGNATURE = re.compile(r"[0-9a-f]{12}")


def compare(one: str, other: str, results: Path) -> dict[str, tuple[Any, Any]]:
    """Dotted keys at which two runs differ, with both values. Raises UserError where a run cannot be found or read."""
    first, second = (identity_of(find_run(name, results)) for name in (one, other))
    return difference(first, second)


def find_run(name: str, results: Path) -> Path:
    """The folder of a run named by its folder, or by its signature below `results`. Raises UserError for none or
    several."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not SIGNATURE.fullmatch(name):
        raise UserError(f"{name}: neither a folder nor a signature of twelve hex digits")
    found = sorted(path for path in results.rglob(f"s*-{name}") if path.is_dir())
    if len(found) != 1:
        places = ", ".join(map(str, found)) or "none"
        raise UserError(f"{name}: one run below {results} should have this signature, found {places}; give its folder")
    return found[0]


def identity_of(folder: Path) -> dict[str, Any]:
    """A run's canonical spec: as its record or last attempt kept it, else made of its spec.json. Raises UserError."""
    record = read_record(folder) or read_attempt(folder)
    if record is not None and isinstance(record.run.get("spec"), dict):
        return dict(record.run["spec"])
    try:
        values = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        return dict(json.loads(canonical_json(RunSpec.from_json(values))))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: no record and no readable spec.json there ({error}); give a run's folder"
        ) from error
