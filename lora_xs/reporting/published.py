"""The papers' printed numbers, from `results/published/`: a cell each, with where it stands and what is wrong with it.

A file's columns are coordinates (`task`, `method`, `rank`, …) but for VALUES, SPREADS and FACTS. A file with several
value columns has several cells a row, told apart by the coordinate `quantity`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from lora_xs.errors import UserError

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
MISPRINTS = "misprints.yaml"
SCORES = ("score", "accuracy", "median")
"""Columns of scores, in points."""
QUANTITIES = (
    *("seconds", "finetune_seconds", "svd_init_seconds", "overhead_percent", "init_seconds", "epoch_seconds"),
    *("macs", "flops"),
)
"""Columns of other results: seconds, percent, operations of a forward pass."""
SPREADS = ("std",)
FACTS = ("trainable_params",)
SCALES = {"K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
AVERAGE = "avg"


@dataclass(frozen=True)
class PublishedCell:
    """One printed number.

    place: its coordinates, as printed. value: in the unit of its column; std: its spread. printed, printed_std: their
    text. source: file:line. facts: other columns. misprint: what is wrong, or None.
    """

    place: Mapping[str, str]
    value: float
    std: float | None
    printed: str
    source: str
    facts: Mapping[str, str]
    misprint: str | None = None
    printed_std: str | None = None

    @property
    def whiskers(self) -> tuple[float, float] | None:
        """As far down as up: the printed spread; None where none is printed."""
        return None if self.std is None else (self.std, self.std)


@dataclass(frozen=True)
class Misprint:
    """A printed number that does not agree with the rest of its table: where, and why."""

    file: str
    where: Mapping[str, str]
    why: str


@cache
def read_published(
    name: str, folder: Path = PUBLISHED, values: tuple[str, ...] = SCORES + QUANTITIES
) -> tuple[PublishedCell, ...]:
    """All printed numbers of a file below `results/published`, in its order. values: columns of numbers, by default
    those of results; a table of settings has none of these.

    Raises UserError for a file that is missing, and for a malformed row (file:line).
    """
    path = folder / name
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; published numbers come with the repository") from error
    reader = csv.DictReader(text.splitlines())
    columns = list(reader.fieldnames or ())
    numbers = [column for column in columns if column in values]
    keys = [column for column in columns if column not in (*values, *SPREADS, *FACTS)]
    cells: list[PublishedCell] = []
    for row in reader:
        where = f"{name}:{reader.line_num}"
        if None in row or None in row.values():
            raise UserError(f"{path}:{reader.line_num}: {len(columns)} columns wanted; mend the row")
        place = {key: row[key] for key in keys if row[key]}
        for column in numbers:
            if not row[column]:
                continue
            own = place if len(numbers) == 1 else {**place, "quantity": column}
            std = row.get("std") or None
            cells.append(
                PublishedCell(
                    place=own,
                    value=number(row[column], where, column),
                    std=number(std, where, "std") if std else None,
                    printed=row[column],
                    source=where,
                    facts={fact: row[fact] for fact in FACTS if row.get(fact)},
                    misprint=_misprint(name, own, folder),
                    printed_std=std,
                )
            )
    return tuple(cells)


def number(text: str, where: str, column: str) -> float:
    """`78.42G` as 7.842e10, `94.72` as 94.72. Raises UserError naming `where` and `column` otherwise."""
    scale = SCALES.get(text[-1:], 1.0)
    try:
        return float(text[:-1] if scale != 1.0 else text) * scale
    except ValueError:
        raise UserError(f"{where}: {column}={text!r} is no number; mend the row") from None


def same(ours: str, theirs: str) -> bool:
    """Equal as text, or as numbers: rates are written 1e-3 in one file and 0.001 in another."""
    if ours == theirs:
        return True
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return False


def agrees(some: Mapping[str, str], place: Mapping[str, str]) -> bool:
    """Whether all of the coordinates `some` are those of `place`."""
    return all(key in place and same(value, place[key]) for key, value in some.items())


@cache
def misprints(folder: Path = PUBLISHED) -> tuple[Misprint, ...]:
    """The known ones, from `results/published/misprints.yaml`."""
    entries = yaml.safe_load((folder / MISPRINTS).read_text(encoding="utf-8"))
    return tuple(Misprint(e["file"], {k: str(v) for k, v in e["where"].items()}, e["why"]) for e in entries)


def _misprint(name: str, place: Mapping[str, str], folder: Path) -> str | None:
    if not (folder / MISPRINTS).is_file():
        return None
    found: Iterator[str] = (m.why for m in misprints(folder) if m.file == name and agrees(m.where, place))
    return next(found, None)
