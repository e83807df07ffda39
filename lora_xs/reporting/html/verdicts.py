"""Claims for a page: a row a part, what our runs say and what the printed numbers say in columns of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

from lora_xs.reporting.claims.finding import Finding
from lora_xs.reporting.claims.pair import Pair
from lora_xs.reporting.claims.paired import Judged, Verdict
from lora_xs.reporting.claims.show import (
    RULE,
    effect_words,
    open_words,
    p_words,
    pairs_words,
    task_words,
    where_words,
)
from lora_xs.reporting.html.anchors import Anchors
from lora_xs.reporting.html.grid import Body, Box, Grid

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
HEADS = ("Claim", "Tested on", "What must hold")
SIDES = ("ours", "published")
PARTS = ("verdict", "effect [95 %]", "pairs for it", "seeds", "p")


@dataclass(frozen=True)
class Pairs:
    """What a verdict of ours is made of. anchor: of this list; row: of the claim's row; pairs: the independent ones."""

    anchor: str
    row: str
    title: str
    how: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Claims:
    """grid: a row a part of a claim in a setting. pairs: of ours. counts: whose verdicts → verdict → how many."""

    grid: Grid
    pairs: tuple[Pairs, ...]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    rule: str = RULE


def claims_of(found: Sequence[Finding]) -> Claims:
    """Everything about the findings."""
    anchors = Anchors()
    rows, pairs = [], []
    for one in found:
        for place, part in enumerate(one.ours):
            anchor = anchors.new(
                ["claim", one.claim.name, one.setting.experiments[0], *([str(place)] if place else [])]
            )
            listed = Pairs(
                f"why.{anchor}", anchor, f"{one.claim.sentence}: {part.words} ({where_words(one)})", one.claim.how,
                part.pairs,
            )  # fmt: skip
            if part.pairs:
                pairs.append(listed)
            theirs = one.published[place] if one.published is not None else None
            where = where_words(one) + ("" if one.setting.is_papers else "; not the papers' setting")
            rows.append(
                (
                    Box(one.claim.sentence, "claim", anchor=anchor, small=one.claim.source),
                    *(Box(text, "label") for text in (where, part.words)),
                    *_side(part, "ours", listed.anchor if part.pairs else ""),
                    *_side(theirs, "published", ""),
                )
            )
    return Claims(Grid(HEADS, SIDES, PARTS, (Body(None, tuple(rows)),)), tuple(pairs), _counts(found))


def _side(part: Judged | None, kind: str, why: str) -> tuple[Box, ...]:
    if part is None or (kind == "published" and not part.n):
        return tuple(Box("–", kind) for _ in PARTS)
    effect, p = part.effect, part.p
    return (
        Box(part.verdict, f"verdict {kind}", status=part.verdict, why=why),
        Box(
            "; ".join(filter(None, [effect_words(part), task_words(part)])), kind,
            "" if effect is None else f"{effect:.10g}",
        ),
        Box(
            "; ".join([pairs_words(part) if part.n else "no pairs", *open_words(part)]), kind,
            str(part.holding) if part.n else "",
        ),
        Box(", ".join(map(str, part.seeds)) or "–", kind, str(len(part.seeds)) if part.seeds else ""),
        Box(p_words(part), kind, "" if p is None else f"{p:.10g}"),
    )  # fmt: skip


def _counts(found: Sequence[Finding]) -> dict[str, dict[str, int]]:
    papers = [one for one in found if one.setting.is_papers]
    own = [one for one in found if not one.setting.is_papers]
    bare = sum(not one.is_tested for one in papers)
    verdicts = {
        f"our runs in the papers' settings, {bare} of {len(papers)} without a pair of runs": [
            o.verdict for o in papers
        ],
        "our runs in small settings of our own, a claim once in each": [one.verdict for one in own],
        "the papers' own printed numbers, by the same rule": [
            verdict for one in papers if (verdict := one.published_verdict) is not None
        ],
    }
    return {whose: _tally(some) for whose, some in verdicts.items()}


def _tally(verdicts: Sequence[Verdict]) -> dict[str, int]:
    found = Counter(verdicts)
    return {verdict: found[verdict] for verdict in VERDICTS}
