"""results/SUMMARY.md says of each claim what results/claims.md says."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "results"


def verdicts(file: str) -> dict[str, set[str]]:
    """The headings under which each claim's name stands in a table row."""
    found: dict[str, set[str]] = defaultdict(set)
    for part in (RESULTS / file).read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        for line in text.splitlines():
            if line.startswith("|"):
                for name in re.findall(r"`([a-z_]+)`[;)]", line):
                    found[name].add(heading.strip())
    return found


def test_the_summary_gives_every_claim_the_verdict_of_the_claims_page() -> None:
    summary, page = verdicts("SUMMARY.md"), verdicts("claims.md")
    assert len(page) == 18
    assert summary == page
