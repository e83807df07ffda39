"""Every record of a page, a row each, and what many of them share told once: environments, data, models.

Records are read as they come: whatever one lacks is said to be lacking, and nothing in one is taken for markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_xs.records import Record
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.html.grid import Body, Box, Grid, sort_key

NOT_RECORDED = "not recorded"
HEADS = (
    *("Run", "Task", "Model", "Method", "Rank", "Seed", "Status", "Folder", "Started (UTC)", "Seconds", "Protocol"),
    *("Commit", "Environment", "Data", "Model files"),
)


@dataclass(frozen=True)
class Shared:
    """What records share. name: E1, D1, M1, …; facts: dotted key and words; runs: how many records have it."""

    name: str
    facts: tuple[tuple[str, str], ...]
    runs: int


@dataclass(frozen=True)
class Ledger:
    """grid: a row a record. shared: title → what of it there is."""

    grid: Grid
    shared: Mapping[str, tuple[Shared, ...]]


class _Register:
    """Numbers what is told once, in order of appearance."""

    def __init__(self, letter: str) -> None:
        self._letter = letter
        self._found: dict[str, Any] = {}
        self._runs: dict[str, int] = {}

    def name(self, content: Any) -> str:
        if not any(content.values()):
            return ""
        key = json.dumps(content, sort_keys=True)
        self._found.setdefault(key, content)
        self._runs[key] = self._runs.get(key, 0) + 1
        return f"{self._letter}{list(self._found).index(key) + 1}"

    def all(self) -> tuple[Shared, ...]:
        return tuple(
            Shared(f"{self._letter}{place}", tuple(flat(content)), self._runs[key])
            for place, (key, content) in enumerate(self._found.items(), start=1)
        )


def ledger_of(evidence: Evidence, roots: Sequence[Path]) -> Ledger:
    """All records in the order of their folders. roots: the results folders, so that paths are told from these."""
    environments, data, models = _Register("E"), _Register("D"), _Register("M")
    rows = []
    for signature in sorted(evidence.records, key=lambda one: (relative(evidence.folders[one], roots), one)):
        record = evidence.records[signature]
        around = record.environment
        names = (
            environments.name({key: around.get(key) for key in ("versions", "hardware", "threads", "world_size")}),
            data.name({key: around.get(key) for key in ("data", "tests")}),
            models.name({key: around.get(key) for key in ("model", "tokenizer", "tokens")}),
        )
        rows.append(_row(record, relative(evidence.folders[signature], roots), names))
    shared = {"Environments": environments.all(), "Data": data.all(), "Models and tokenizers": models.all()}
    return Ledger(Grid(HEADS, (), (), (Body(None, tuple(rows)),)), shared)


def relative(folder: Path, roots: Sequence[Path]) -> str:
    """A record's folder, told from the results folder that it lies in: nothing above that is this page's business."""
    for root in roots:
        if folder.is_relative_to(root):
            return (Path(root.resolve().name) / folder.relative_to(root)).as_posix()
    return folder.name


def run_anchor(signature: str) -> str:
    """Of a record's row."""
    return f"run-{signature}"


def shared_anchor(name: str) -> str:
    """Of what records share."""
    return f"shared-{name}"


def told(content: Mapping[str, Any], *keys: str) -> str:
    """The value below `keys` in words; empty where there is none."""
    value: Any = content
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def method_words(spec: Mapping[str, Any]) -> tuple[str, str]:
    """A run's method and rank."""
    return told(spec, "method", "name") or told(spec, "method"), told(spec, "rank")


def error_words(error: Any) -> str:
    """Why a run ended as it did: what happened and, where it is known, at which step."""
    if not isinstance(error, Mapping):
        return "" if error is None else str(error)
    what, step = told(error, "what"), told(error, "step")
    return what if not step or what.endswith(f" {step}") else f"{what}, at step {step}"


def commit_words(record: Record) -> str:
    """Seven digits, and whether the tree had changes that are not in it."""
    commit = told(record.environment, "commit")[:7]
    return commit + (" + changes" if commit and record.environment.get("dirty") else "")


def protocol_words(record: Record) -> str:
    """The papers' reading that the run follows, with its version."""
    version = told(record.run, "spec", "protocol_version")
    return " ".join(filter(None, [told(record.run, "protocol"), version and f"v{version}"]))


def flat(content: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted keys with words; lists in a line."""
    if isinstance(content, Mapping):
        for key in sorted(content, key=str):
            yield from flat(content[key], f"{above}.{key}" if above else str(key))
    elif isinstance(content, list | tuple):
        yield above, ", ".join(map(str, content)) or "–"
    elif content is not None:
        yield above, str(content)


def _row(record: Record, folder: str, names: tuple[str, str, str]) -> tuple[Box, ...]:
    run, spec = record.run, record.run.get("spec", {})
    method, rank = method_words(spec)
    seconds = told(run, "seconds")
    error = error_words(run.get("error"))
    texts = (
        *(told(spec, "task", "name"), told(spec, "model", "name"), method, rank, told(run, "seed")),
        *(f"{record.status}: {error}" if error else record.status, folder, told(run, "started").replace("+00:00", "")),
        *(seconds and f"{float(seconds):,.0f}", protocol_words(record), commit_words(record)),
    )
    plain = [Box(text or "–", "label", sort_key(text)) for text in texts]
    links = [Box(name or NOT_RECORDED, "link" if name else "label", why=shared_anchor(name)) for name in names]
    signature = Box(record.signature, "run", anchor=run_anchor(record.signature), status=record.status)
    return (signature, *plain, *links)
