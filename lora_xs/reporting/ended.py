"""How many of the planned runs are there, and how they ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lora_xs.records import Record


@dataclass(frozen=True)
class Ended:
    """planned: runs. scored: of these, those whose scores count; collapsed: of those, the ones that ended in one answer
    for every row. diverged: runs without a score that counts."""

    planned: int
    scored: int = 0
    collapsed: int = 0
    diverged: int = 0

    @property
    def ended(self) -> int:
        """Runs that are there."""
        return self.scored + self.diverged

    @property
    def is_complete(self) -> bool:
        """Whether every planned run has ended."""
        return self.ended >= self.planned

    @property
    def words(self) -> str:
        """`154 of 156 runs, 4 of them collapsed, 2 diverged`."""
        collapsed = f", {self.collapsed} of them collapsed" if self.collapsed else ""
        diverged = f", {self.diverged} diverged" if self.diverged else ""
        return f"{self.scored} of {self.planned} runs{collapsed}{diverged}"


def ended_of(signatures: Iterable[str], records: Mapping[str, Record]) -> Ended:
    """Of these runs, each once."""
    planned = set(signatures)
    there = [records[signature] for signature in planned & records.keys()]
    scored = sum(record.scored for record in there)
    return Ended(len(planned), scored, sum(record.collapsed for record in there), len(there) - scored)
