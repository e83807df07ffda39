"""Figures already drawn from the same numbers by the same code, kept between calls: drawing takes most of the time."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from lora_xs.atomic import write_json
from lora_xs.cache import cache_root
from lora_xs.reporting.html.drawn import Drawn
from lora_xs.reporting.losses import METRICS
from lora_xs.reporting.material import Material

LIBRARIES = ("matplotlib", "pillow", "numpy")
REPORTING = Path(__file__).resolve().parents[1]


def place_of(material: Material) -> Path | None:
    """Where the figures of this material are kept; None where the cache is off. A different number, line of a run's
    losses, line of code or version of a library is a different place."""
    folder = cache_root("figures")
    if folder is None:
        return None
    plain = dataclasses.replace(material, folders={})  # where a record lies says nothing about its figure
    digest = hashlib.sha256(json.dumps([_code(), dataclasses.asdict(plain)], sort_keys=True, default=str).encode())
    for signature in sorted(material.folders):
        file = material.folders[signature] / METRICS
        digest.update(file.read_bytes() if file.is_file() else b"none")
    return folder / f"{material.name}-{digest.hexdigest()[:24]}.json"


def read_kept(place: Path | None) -> list[Drawn] | None:
    """The figures kept there; None where there are none that are whole."""
    if place is None or not place.is_file():
        return None
    try:
        entries = json.loads(place.read_text(encoding="utf-8"))
        return [Drawn(**{**entry, "png": base64.b64decode(entry["png"], validate=True)}) for entry in entries]
    except (ValueError, TypeError, KeyError):
        place.unlink(missing_ok=True)
        return None


def keep(place: Path | None, drawn: Sequence[Drawn]) -> None:
    """Keep figures for the next call."""
    if place is not None:
        write_json(place, [{**vars(one), "png": base64.b64encode(one.png).decode()} for one in drawn])


@cache
def _code() -> str:
    """A hash of everything that draws."""
    digest = hashlib.sha256(json.dumps({name: version(name) for name in LIBRARIES}, sort_keys=True).encode())
    for file in sorted(REPORTING.rglob("*.py")):
        digest.update(str(file.relative_to(REPORTING)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
