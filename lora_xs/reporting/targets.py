"""Where a command is asked to write: checked before anything is read or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_xs.errors import UserError


def checked_folder(folder: Path, word: str) -> Path:
    """`folder`, which need not be there yet. Raises UserError, beginning with `word`, where a file is in its way."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{word}{folder}: {place} is a file; name a folder, there or new")
    return folder


def checked_file(file: Path, word: str) -> Path:
    """`file`, which need not be there yet. Raises UserError, beginning with `word`, where it is a folder or cannot lie
    in one."""
    if file.is_dir():
        raise UserError(f"{word}{file} is a folder; name the file in it, for example {file / 'index.html'}")
    checked_folder(file.parent, word)
    return file


def checked_formats(text: str, known: Sequence[str]) -> list[str]:
    """The formats of a comma-separated `text`, each once. Raises UserError for one that is not `known`."""
    formats = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for part in formats:
        if part not in known:
            raise UserError(f"--format {part!r} is unknown; choose among {', '.join(known)}")
    return formats
