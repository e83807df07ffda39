"""Pictures as files: PNG for screens, PDF with embedded fonts for print; the same bytes from the same numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_xs.atomic import replace_file, write_bytes, write_json
from lora_xs.reporting.figures.picture import Captioned, Picture
from lora_xs.reporting.figures.raster import png_of
from lora_xs.reporting.figures.style import styled

FORMATS = ("png", "pdf")
UNDATED: Mapping[str, Any] = {"CreationDate": None, "Creator": None, "Producer": None}
"""Keeps times and versions out of a PDF."""
STATE = "index.json"


@dataclass(frozen=True)
class Listed:
    """What a folder's index says of a picture."""

    name: str
    kind: str
    experiment: str
    caption: str


def save(picture: Picture, folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a picture in each of the formats; return the files. Where it changed, files of other formats go."""
    before = {ending: _bytes(folder / f"{picture.name}.{ending}") for ending in formats}
    files = []
    for ending in formats:
        path = folder / f"{picture.name}.{ending}"
        if ending == "png":
            write_bytes(path, png_of(picture))
        else:
            with styled():
                replace_file(path, lambda file: picture.figure.savefig(file, format="pdf", metadata=UNDATED))
        files.append(path)
    if any(_bytes(folder / f"{picture.name}.{ending}") != old for ending, old in before.items()):
        _drop(folder, picture.name, [ending for ending in FORMATS if ending not in formats])
    return files


def save_png(name: str, png: bytes, folder: Path) -> None:
    """Write a picture that is drawn already. Where it changed, files of other formats go."""
    path = folder / f"{name}.png"
    if _bytes(path) != png:
        _drop(folder, name, [ending for ending in FORMATS if ending != "png"])
    write_bytes(path, png)


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _drop(folder: Path, name: str, formats: Sequence[str]) -> None:
    for ending in formats:
        (folder / f"{name}.{ending}").unlink(missing_ok=True)


def write_index(folder: Path, drawn: Mapping[str, Sequence[Captioned]]) -> list[Path]:
    """Note what was drawn in `index.json`, and remove the files of pictures that its experiments no longer have.

    drawn: the pictures of each experiment that was asked for. Returns what was removed.
    """
    before = _index(folder)
    now = {name: entry for name, entry in before.items() if entry.get("experiment") not in drawn}
    for pictures in drawn.values():
        for picture in pictures:
            entry = {"experiment": picture.experiment, "kind": picture.kind, "caption": picture.caption}
            now[picture.name] = entry
    gone = [folder / f"{name}.{ending}" for name in before.keys() - now.keys() for ending in FORMATS]
    removed = [file for file in gone if file.is_file()]
    for file in removed:
        file.unlink()
    write_json(folder / STATE, now)
    return removed


def listed(folder: Path) -> dict[str, list[Listed]]:
    """The pictures that `folder` has as PNG, by experiment; none where nothing was drawn there."""
    found: dict[str, list[Listed]] = {}
    for name, entry in sorted(_index(folder).items()):
        if (folder / f"{name}.png").is_file():
            one = Listed(name, entry["kind"], entry["experiment"], entry["caption"])
            found.setdefault(one.experiment, []).append(one)
    return found


def _index(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
