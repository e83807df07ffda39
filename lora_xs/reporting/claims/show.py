"""Findings as a table on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from lora_xs.reporting.claims.finding import Finding
from lora_xs.reporting.claims.paired import Judged

RULE = (
    "Differences are positive where they speak for the claim. Those that share a run are one pair, their mean; the "
    "effect is the mean difference of the pairs, beside it their median. Decided: 3 pairs or more, more than half of "
    "them the effect's way, Student's 95 % interval clear of 0 and, of 6 pairs or more, p of exact sign flips "
    "(two-sided) at most 0.05. Fewer than 6 pairs cannot reach that p: there the interval decides alone. Undecided: "
    "all else, and whatever lacks runs, not run yet or diverged; `so far` is what its pairs say. A run that collapsed "
    "to one answer counts with its scores. `rests on`: without that task's pairs the verdict is the one beside it. "
    "`k of n`: pairs that speak for it. A claim of several parts needs all of them; one that fails contradicts it. No "
    "correction for many claims."
)


def print_findings(found: Sequence[Finding], console: Console) -> None:
    """A row a part of a claim and setting."""
    table = Table(*("claim", "tested on", "what", "ours", "effect [95 %]", "pairs for it", "seeds", "p", "published"))
    for one in found:
        for place, part in enumerate(one.ours):
            theirs = one.published[place] if one.published is not None else None
            table.add_row(
                *((one.claim.sentence, where_words(one)) if place == 0 else ("", "")),
                part.words, "\n".join([part.verdict, *open_words(part)]),
                "\n".join(filter(None, [effect_words(part), task_words(part)])), pairs_words(part),
                ", ".join(map(str, part.seeds)) or "–", p_words(part), published_words(theirs),
            )  # fmt: skip
        table.add_section()
    console.print(table)
    console.print(RULE)


def where_words(one: Finding) -> str:
    """The setting in few words: the paper's table, or the experiment of ours; models; tasks of pairs; runs."""
    setting = one.setting
    name = one.claim.source if setting.is_papers else " + ".join(setting.experiments)
    overrides = " " + " ".join(setting.overrides) if setting.overrides else ""
    models = f", {', '.join(setting.models)}" if setting.models else ""
    tasks = f", {', '.join(setting.tasks)}" if setting.tasks else ""
    mark = "SYNTHETIC " if setting.synthetic else ""
    note = f"; {setting.note}" if setting.note else ""
    return f"{mark}{name}{overrides}{models}{tasks} ({setting.ended.words}){note}"


def p_words(part: Judged) -> str:
    """Three digits; a dash where there is no chance, or no pair."""
    if part.p is None:
        return "–"
    return "<0.001" if part.p < 0.001 else f"{part.p:.3f}"


def effect_words(part: Judged) -> str:
    """`+1.20 [0.40, 2.00] points, median +1.10`."""
    if part.effect is None or part.median is None:
        return "–"
    interval = f" [{part.interval[0]:.2f}, {part.interval[1]:.2f}]" if part.interval is not None else ""
    median = f", median {part.median:+.2f}" if part.n > 1 else ""
    return f"{part.effect:+.2f}{interval} {part.unit}{median}"


def task_words(part: Judged) -> str:
    """`CoLA +2.10, RTE -0.40`: the mean difference of each task; nothing where there is but one."""
    means = part.by_task
    return ", ".join(f"{task} {mean:+.2f}" for task, mean in means.items()) if len(means) > 1 else ""


def pairs_words(part: Judged) -> str:
    """`2 of 3 pairs (12 differences)`: independent pairs that speak for it."""
    several = f" ({len(part.differences)} differences)" if len(part.differences) > part.n else ""
    return f"{part.holding} of {part.n} pairs{several}"


def open_words(part: Judged) -> list[str]:
    """What keeps a verdict open or weak: what the pairs say while runs are missing, whose runs diverged, and tasks
    without which it would be another."""
    so_far = [] if part.complete and not part.lost else [f"so far: {part.so_far}" if part.n else "no pairs yet"]
    lost = [f"lost: {count} of {side} diverged" for side, count in part.lost_runs.items()]
    return so_far + lost + [f"rests on {task}: without it {verdict}" for task, verdict in part.without_task.items()]


def published_words(part: Judged | None) -> str:
    """`supported: 4 of 4 pairs, +2.10 [1.00, 3.20] points, median +2.00, p 0.125`; a dash where nothing is printed."""
    if part is None or not part.n:
        return "–"
    p = f", p {p_words(part)}" if part.p is not None else ""
    return f"{part.verdict}: {pairs_words(part)}, {effect_words(part)}{p}"
