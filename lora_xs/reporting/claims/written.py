"""Findings as one page of Markdown: what holds, what does not, what is undecided, what nobody ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lora_xs.reporting.claims.finding import Finding
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
from lora_xs.reporting.render_markdown import escape

HEADINGS: dict[Verdict, str] = {
    "supported": "Holds here",
    "contradicted": "Does not hold here",
    "undecided": "Undecided here",
}
INCOMPLETE = "Not complete"
"""The heading of what has no verdict yet, because runs are missing."""
PAPERS: dict[Verdict | None, str] = {
    "supported": "support it",
    "contradicted": "contradict it",
    "undecided": "leave it open",
    None: "say nothing",
}


def claims_page(found: Sequence[Finding]) -> str:
    """The page; a claim that was tested in several settings stands once for each, and is counted once at the head.
    SYNTHETIC where anything is."""
    tested = [one for one in found if one.is_tested]
    names = list(dict.fromkeys(one.claim.name for one in found))
    untested = [name for name in names if name not in {one.claim.name for one in tested}]
    printed = {one.claim.name: one.published_verdict for one in found if one.setting.is_papers}
    says = Counter(PAPERS[verdict] for verdict in printed.values())
    parts = {
        heading: [one for one in tested if _heading(one) == heading] for heading in (*HEADINGS.values(), INCOMPLETE)
    }
    counts = Counter({heading.lower(): len(here) for heading, here in parts.items() if here})
    synthetic = any(one.setting.synthetic for one in found)
    lines = [
        f"# {'SYNTHETIC: ' if synthetic else ''}The papers' claims, tested",
        "",
        f"Written by `make report`: {len(names)} claims, {len(names) - len(untested)} of them with runs here, "
        f"{len(untested)} not run. Verdicts of our runs, one for each setting of a claim: {_counted(counts)}.",
        f"The papers' own printed numbers, by the same rule: {_counted(says)}.",
        "",
        f"{RULE} Everything about a finding, pairs included: `python scripts/claims.py claim=<name> --json`.",
    ]
    for heading, here in parts.items():
        if here:
            lines += ["", f"## {heading}", ""]
            lines += ["These lack runs: no verdict, only what the pairs say so far.", ""] * (heading == INCOMPLETE)
            lines += _table(here, printed)
    if untested:
        lines += ["", "## Not run here", "", "No finished run is behind these.", ""]
        lines += ["| claim | source | the papers' numbers | experiments |", "|---|---|---|---|"]
        first = {one.claim.name: one.claim for one in reversed(found)}
        lines += [
            _row(
                f"{escape(first[name].sentence)} (`{name}`)",
                escape(first[name].source),
                PAPERS[printed.get(name)],
                ", ".join(f"`{one}`" for one in (*first[name].papers, *first[name].own)),
            )
            for name in untested
        ]
    return "\n".join(lines) + "\n"


def _heading(one: Finding) -> str:
    return HEADINGS[one.verdict] if one.setting.ended.is_complete else INCOMPLETE


def _table(found: Iterable[Finding], printed: Mapping[str, Verdict | None]) -> Iterable[str]:
    yield "| claim | tested on | by our runs | the papers' numbers |"
    yield "|---|---|---|---|"
    for one in found:
        yield _row(
            f"{escape(one.claim.sentence)} (`{one.claim.name}`; {escape(one.claim.source)})",
            escape(where_words(one)),
            "<br>".join(_part(part, len(one.ours) > 1) for part in one.ours),
            PAPERS[printed.get(one.claim.name)],
        )


def _part(part: Judged, named: bool) -> str:
    chance = "" if part.p is None else f", p {p_words(part)}"
    seeds = f", seeds {', '.join(map(str, part.seeds))}" if part.seeds else ""
    name = f"{part.words} ({part.verdict}): " if named else ""
    said = f"{name}{effect_words(part)}; {pairs_words(part)}{seeds}{chance}"
    return escape("; ".join([said, *filter(None, [task_words(part)]), *open_words(part)]))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "none"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
