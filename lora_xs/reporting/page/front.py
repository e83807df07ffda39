"""The page's first screen and its last: what was run, how much of it agrees, and with what software it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_xs.records import Record
from lora_xs.reporting.cell_text import LEGEND
from lora_xs.reporting.claims.finding import Finding
from lora_xs.reporting.claims.show import effect_words, p_words, published_words, where_words
from lora_xs.reporting.evidence import Evidence
from lora_xs.reporting.page.section import Section

PACKAGES = ("python", "torch", "transformers", "peft", "datasets", "lora_xs")


@dataclass(frozen=True)
class Count:
    """A number on the first screen, with what it means."""

    name: str
    value: str
    meaning: str = ""


@dataclass(frozen=True)
class Tested:
    """A part of a claim in one setting."""

    words: str
    verdict: str
    effect: str
    n: int
    seeds: str
    p: str
    published: str
    published_verdict: str


@dataclass(frozen=True)
class ClaimLine:
    """A claim in one setting. where: the setting in few words. verdict: of our runs; published: of the papers' numbers,
    empty where none are printed."""

    name: str
    sentence: str
    source: str
    how: str
    where: str
    setting: str
    is_papers: bool
    verdict: str
    published: str
    parts: tuple[Tested, ...]


@dataclass(frozen=True)
class Fact:
    """A line of the provenance of all runs: a commit, a model, a data set; how many records have it."""

    kind: str
    what: str
    records: int


def counts_of(sections: Sequence[Section]) -> list[Count]:
    """Cells of the papers' tables by status, every experiment's."""
    total: Counter[str] = Counter()
    for section in sections:
        if section.is_papers:
            total.update(dict(section.counts))
    return [Count(status, f"{total[status]:,}", meaning) for status, meaning in LEGEND.items() if total[status]]


def claim_lines(findings: Sequence[Finding]) -> list[ClaimLine]:
    """A line a claim and setting."""
    lines = []
    for one in findings:
        parts = []
        for place, part in enumerate(one.ours):
            theirs = one.published[place] if one.published is not None else None
            parts.append(
                Tested(
                    part.words, part.verdict, effect_words(part), part.n, ", ".join(map(str, part.seeds)) or "–",
                    p_words(part), published_words(theirs), theirs.verdict if theirs is not None and theirs.n else "",
                )
            )  # fmt: skip
        claim, setting = one.claim, one.setting
        lines.append(
            ClaimLine(
                claim.name, claim.sentence, claim.source, claim.how, where_words(one), setting.words,
                setting.is_papers, one.verdict, one.published_verdict or "", tuple(parts),
            )
        )  # fmt: skip
    return lines


def facts_of(evidence: Evidence) -> list[Fact]:
    """Commits, packages, hardware, models and data of all records, the most frequent first."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in ("commit", "packages", "hardware", "model", "rows")}
    for record in evidence.records.values():
        for kind, what in _facts(record):
            found[kind][what] += 1
    return [Fact(kind, what, number) for kind, counter in found.items() for what, number in counter.most_common()]


def newest(evidence: Evidence) -> str:
    """When the latest run began, as its record says; empty without records."""
    return max((str(record.run.get("started") or "") for record in evidence.records.values()), default="")


def _facts(record: Record) -> list[tuple[str, str]]:
    environment = record.environment
    versions: Mapping[str, Any] = environment.get("versions") or {}
    hardware: Mapping[str, Any] = environment.get("hardware") or {}
    model: Mapping[str, Any] = environment.get("model") or {}
    data: Mapping[str, Any] = environment.get("data") or {}
    spec: Mapping[str, Any] = record.run.get("spec") or {}
    names = {key: str((spec.get(key) or {}).get("name", "unnamed")) for key in ("model", "task")}
    commit = f"{environment.get('commit') or 'unknown'}{' and changes' if environment.get('dirty') else ''}"
    machine = hardware.get("gpu") or f"{hardware.get('cpu', 'unknown')}, {hardware.get('cores', '?')} cores"
    hashes = ", ".join(f"{name} {str(value)[:12]}" for name, value in (model.get("files") or {}).items())
    rows = ", ".join(f"{name} {str(value)[:12]}" for name, value in (data.get("content") or {}).items())
    return [
        ("commit", commit),
        ("packages", ", ".join(f"{name} {versions[name]}" for name in PACKAGES if name in versions) or "unknown"),
        ("hardware", str(machine)),
        ("model", f"{names['model']}: {hashes or 'unknown'}"),
        ("rows", f"{names['task']}: {rows or 'unknown'}"),
    ]
