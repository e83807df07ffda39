"""Letting a diverged run train again: its record is set aside, not destroyed, so the folder counts as new."""

from __future__ import annotations

import os
from pathlib import Path

from lora_xs.errors import UserError
from lora_xs.lease import Lease, RunBusy
from lora_xs.records import RECORD, read_record
from lora_xs.spec import RunSpec


def set_aside(spec: RunSpec) -> Path | None:
    """Rename the diverged record of `spec` to `record-diverged-<n>.json`; None where there is none by now.

    Raises UserError where another process trains the run.
    """
    folder = spec.folder
    try:
        with Lease(folder):
            record = read_record(folder)
            if record is None or record.status != "diverged":
                return None
            number = len(list(folder.glob("record-diverged-*.json"))) + 1
            kept = folder / f"record-diverged-{number}.json"
            os.rename(folder / RECORD, kept)
            return kept
    except RunBusy as busy:
        raise UserError(str(busy)) from busy
