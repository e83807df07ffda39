"""How much of a run's history a logger has already: a resumed run sends it the rest, a forced one starts another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_xs.atomic import write_json

FILE = "logged.json"
LOGGERS = ("wandb", "tensorboard")
"""Names of loggers, and of their folders below a run's."""


@dataclass
class Logged:
    """The content of `logged.json` in a logger's folder.

    start: which training of this RunSpec, from 1. lines: how many lines of its history the logger was given. part: the
    file, below `folder`, of an attempt that has not ended, and before: the lines of all earlier ones.
    """

    folder: Path
    start: int = 1
    lines: int = 0
    before: int = 0
    part: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Logged:
        """What the file in `folder` says; the beginning where there is none that can be read."""
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
            start, lines, before = (int(content[key]) for key in ("start", "lines", "before"))
            return cls(folder, start, lines, before, content["part"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls(folder)

    def recover(self, count: Callable[[Path], int | None]) -> None:
        """After an attempt that was killed: believe its file, which may hold fewer lines than were given, or more than
        were noted. count: the lines in a file, None where that cannot be told."""
        if self.part is not None:
            file = self.folder / self.part
            found = count(file) if file.is_file() else 0
            self.lines = self.before + found if found is not None else self.lines

    def opened(self, part: Path | None) -> None:
        """An attempt begins, and writes into `part`; None where a line that was given is in the file at once."""
        self.before, self.part = self.lines, str(part.relative_to(self.folder)) if part is not None else None
        self._save()

    def reached(self, lines: int) -> None:
        """The logger has the first `lines` now."""
        self.lines = lines
        self._save()

    def closed(self) -> None:
        """The attempt ended, and all its lines are in its file."""
        self.part = None
        self._save()

    def _save(self) -> None:
        if not self.folder.is_dir():  # what the logger was given has gone too
            raise FileNotFoundError(f"{self.folder} was removed")
        names = ("start", "lines", "before", "part")
        write_json(self.folder / FILE, {name: getattr(self, name) for name in names})


def start_anew(folder: Path) -> None:
    """Drop what loggers hold of the run in `folder`, as a forced run drops its record; it counts as another start."""
    for name in LOGGERS:
        place = folder / name
        if place.is_dir():
            start = Logged.read(place).start + 1
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(exist_ok=True)
            Logged(place, start).closed()
