"""Findings as a table on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from lora_xs.reporting.claims.finding import Finding
from lora_xs.reporting.claims.paired import Judged

RULE = (
    "Differences are positive where they speak for the claim. Undecided: fewer than 3 pairs, or p > 0.05 (exact sign "
    "flips, two-sided) while Student's 95 % interval covers 0. `k of n`: pairs that speak for it. No "
    "correction for many claims."
)


def print_findings(found: Sequence[Finding], console: Console) -> None:
    """A row a part of a claim and setting."""
    table = Table(*("claim", "tested on", "what", "ours", "effect [95 %]", "n", "seeds", "p", "published"))
    for one in found:
        for place, part in enumerate(one.ours):
            theirs = one.published[place] if one.published is not None else None
            table.add_row(
                *((one.claim.sentence, where_words(one)) if place == 0 else ("", "")),
                part.words, part.verdict, effect_words(part), str(part.n), ", ".join(map(str, part.seeds)) or "–",
                p_words(part), published_words(theirs),
            )  # fmt: skip
        table.add_section()
    console.print(table)
    console.print(RULE)


def where_words(one: Finding) -> str:
    """The setting in few words: the paper's table, or the experiment of ours; models; runs."""
    setting = one.setting
    name = one.claim.source if setting.is_papers else " + ".join(setting.experiments)
    overrides = " " + " ".join(setting.overrides) if setting.overrides else ""
    models = f", {', '.join(setting.models)}" if setting.models else ""
    mark = "SYNTHETIC " if setting.synthetic else ""
    return f"{mark}{name}{overrides}{models} ({setting.finished}/{setting.planned} runs)"


def p_words(part: Judged) -> str:
    """Three digits; a dash where there is no chance, or no pair."""
    if part.p is None:
        return "–"
    return "<0.001" if part.p < 0.001 else f"{part.p:.3f}"


def effect_words(part: Judged) -> str:
    """`+1.20 [0.40, 2.00] points`."""
    if part.effect is None:
        return "–"
    interval = f" [{part.interval[0]:.2f}, {part.interval[1]:.2f}]" if part.interval is not None else ""
    return f"{part.effect:+.2f}{interval} {part.unit}"


def published_words(part: Judged | None) -> str:
    """`supported: 4 of 4, +2.10 [1.00, 3.20] points, p 0.125`; a dash where nothing is printed."""
    if part is None or not part.n:
        return "–"
    p = f", p {p_words(part)}" if part.p is not None else ""
    return f"{part.verdict}: {part.holding} of {part.n}, {effect_words(part)}{p}"
