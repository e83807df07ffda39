"""The points of an analysis as they are found: a JSON line each, appended and synced; a kill loses one at most."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_xs.atomic import write_text
from lora_xs.errors import UserError


class PointFile:
    """A file whose first line says what its points belong to; points of anything else are dropped.

    header: what the file is about; a file about something else begins anew. path: made where it is missing. A last
    line that a kill cut short is cut off. `points` are all that stand there, in order. Raises UserError (file:line) for
    a whole line that is no JSON object.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        text = path.read_bytes() if path.is_file() else b""
        whole = text[: text.rfind(b"\n") + 1]
        lines = [_parsed(line, f"{path}:{number}") for number, line in enumerate(whole.splitlines(), start=1)]
        if not lines or lines[0] != dict(header):
            write_text(path, _line(header))
            lines = [dict(header)]
        elif whole != text:
            os.truncate(path, len(whole))
        self.points = lines[1:]

    def append(self, point: Mapping[str, Any]) -> None:
        """Add a point; it is on disk when this returns."""
        with open(self.path, "ab") as file:
            file.write(_line(point).encode())
            file.flush()
            os.fsync(file.fileno())
        self.points.append(dict(point))


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{where}: not a JSON object; remove the file, its points are found again")
    return content
