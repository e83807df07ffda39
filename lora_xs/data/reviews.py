"""Movie-review sentences with a mean sentiment score of some twenty raters, in -4 … 4 (MIT licence).

Source: C.J. Hutto and E. Gilbert, VADER, ICWSM 2014: 10,605 sentences, one a line: id, score, text.

Rules, all of them functions of a row's text or score alone:
- runs of white space become one blank;
- of rows with the same folded text (NFKC, case folded) the first is kept;
- a row is for validation if the first 32 bits of the SHA-256 of its folded text are divisible by ten, else for
  training. Ids are plain row numbers and no review is marked, so the text is all there is to split by;
- class `positive` is a score above 0, `negative` one below; a score of exactly 0 has no class and is left out of the
  classification (not of the regression).
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from pathlib import Path
from typing import Any

from lora_xs.data.files import lines_of
from lora_xs.data.package import ARCHIVE, PACKAGE, SDIST, TEXT, VERSION, packaged_text, text_of
from lora_xs.data.rows import Columns, Kind, TaskRows, build_rows
from lora_xs.data.sources import Request, local_root, resolve_source, sha256
from lora_xs.errors import UserError

LABELS = ("negative", "positive")
SCORES = (-4.0, 4.0)
ONE_IN = 10


def load_reviews(request: Request, *, kind: Kind) -> TaskRows:
    """The sentences with their class or with their score (the module's head states every rule).

    `local`: `<root>/reviews/` holding the text file, the archive it comes in or the package's source archive.
    Raises UserError where the sentences cannot be had, and for a malformed row.
    """
    origin: dict[str, Any]
    if resolve_source(request, ("local", "package"), local_holds="reviews") == "local":
        folder = local_root(request) / "reviews"
        path = next((folder / name for name in (TEXT, ARCHIVE, SDIST) if (folder / name).is_file()), None)
        if path is None:
            raise UserError(f"task={request.task}: no file {folder / TEXT} (nor {ARCHIVE}, nor {SDIST} beside it)")
        content, place = text_of(path), str(path)
        origin = {"source": "local"}
    else:
        content, place = packaged_text(request.cache), TEXT
        origin = {"source": "package", "package": PACKAGE, "version": VERSION}
    rows = parse_reviews(content, place)
    unique: dict[str, tuple[str, float]] = {}
    for text, score in rows:
        unique.setdefault(fold(text), (text, score))
    splits: dict[bool, list[tuple[str, None, float | int]]] = {False: [], True: []}
    zeros = 0
    for folded, (text, score) in unique.items():
        if kind == "classification" and score == 0:
            zeros += 1
            continue
        label = score if kind == "regression" else int(score > 0)
        splits[for_validation(folded)].append((text, None, label))
    for validation, chosen in splits.items():
        if not chosen:
            name = "validation" if validation else "training"
            raise UserError(f"{place}:1: too few rows, none falls to the {name} split")
    dropped = {"duplicates": len(rows) - len(unique), "zero_scores": zeros}
    origin |= {"files": {TEXT: sha256(content)}, "dropped": dropped}
    labels = LABELS if kind == "classification" else ()
    return build_rows(Columns.of(splits[False]), Columns.of(splits[True]), kind, labels, origin)


def parse_reviews(content: bytes, place: Path | str) -> list[tuple[str, float]]:
    """(text, score) a line, white space normalised. Raises UserError `place:line: field …` for a malformed one."""
    rows = []
    for where, line in lines_of(place, content):
        fields = line.rstrip("\r").split("\t")
        if len(fields) != 3:
            raise UserError(f"{where}: {len(fields)} tab-separated fields, not the three id, score, text")
        try:
            score = float(fields[1])
        except ValueError:
            score = math.nan
        if not SCORES[0] <= score <= SCORES[1]:
            raise UserError(f"{where}: field 'score' must be a number -4 to 4, not {fields[1]!r}")
        text = " ".join(fields[2].split())
        if not text:
            raise UserError(f"{where}: field 'text' is empty")
        rows.append((text, score))
    return rows


def fold(text: str) -> str:
    """What makes two texts the same: compatible characters (NFKC), case and white space folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def for_validation(folded: str) -> bool:
    """Whether a folded text falls to the validation split: one in ten, by its SHA-256."""
    return int.from_bytes(hashlib.sha256(folded.encode()).digest()[:4], "big") % ONE_IN == 0
