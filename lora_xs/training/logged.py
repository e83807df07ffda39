"""How much of a run's history a logger has already: a resumed run sends it the rest, a forced one starts another."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from lora_xs.atomic import write_json

FILE = "logged.json"
LOGGERS = ("wandb", "tensorboard")
"""Names of loggers, and of their folders below a run's."""


@dataclass
class Logged:
    """The content of `logged.json` in a logger's folder. start: which training of this RunSpec, from 1; lines: how many
    lines of its history the logger was given."""

    folder: Path
    start: int = 1
    lines: int = 0

    @classmethod
    def read(cls, folder: Path) -> Logged:
        """What the file in `folder` says; the beginning where there is none that can be read."""
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
            return cls(folder, int(content["start"]), int(content["lines"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(folder)

    def reached(self, lines: int) -> None:
        """Write down that the logger has the first `lines`. Raises FileNotFoundError where its folder has gone: what it
        was given has gone too."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} was removed")
        self.lines = lines
        write_json(self.folder / FILE, {"start": self.start, "lines": lines})


def start_anew(folder: Path) -> None:
    """Drop what loggers hold of the run in `folder`, as a forced run drops its record; it counts as another start."""
    for name in LOGGERS:
        place = folder / name
        if place.is_dir():
            start = Logged.read(place).start + 1
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(exist_ok=True)
            Logged(place, start).reached(0)
