"""Pictures as files: PNG for screens, PDF with embedded fonts for print; the same bytes from the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_xs.atomic import replace_file, write_json
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.style import styled

FORMATS: Mapping[str, Mapping[str, Any]] = {
    "png": {"metadata": {"Software": None}},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}
"""Ending → what keeps times and versions out of the file."""
STATE = "index.json"


def save(picture: Picture, folder: Path, formats: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    """Write a picture in each of the formats; return the files."""
    files = []
    for ending in formats:
        path = folder / f"{picture.name}.{ending}"

        def write(partial: Path, ending: str = ending) -> None:
            picture.figure.savefig(partial, format=ending, **FORMATS[ending])

        with styled():
            replace_file(path, write)
        files.append(path)
    return files


def write_index(folder: Path, drawn: Mapping[str, Sequence[Picture]]) -> list[Path]:
    """Note what was drawn in `index.json`, and remove the files of pictures that its experiments no longer have.

    drawn: the pictures of each experiment that was asked for. Returns what was removed.
    """
    import json

    path = folder / STATE
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    before = before if isinstance(before, dict) else {}
    now = {name: entry for name, entry in before.items() if entry.get("experiment") not in drawn}
    for pictures in drawn.values():
        for picture in pictures:
            entry = {"experiment": picture.experiment, "kind": picture.kind, "caption": picture.caption}
            now[picture.name] = entry
    gone = [folder / f"{name}.{ending}" for name in before.keys() - now.keys() for ending in FORMATS]
    removed = [file for file in gone if file.is_file()]
    for file in removed:
        file.unlink()
    write_json(path, now)
    return removed
