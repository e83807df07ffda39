"""Where a command is asked to write: checked before anything is read or drawn."""

from __future__ import annotations

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
