"""A claim, tested: what our runs say in one setting, what the papers' own numbers say, and what that setting was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lora_xs.reporting.claims.claim import Claim, Part
from lora_xs.reporting.claims.pair import Found, Lost, Pair
from lora_xs.reporting.claims.paired import Judged, Verdict, together
from lora_xs.reporting.ended import Ended, ended_of
from lora_xs.reporting.labels import label
from lora_xs.reporting.material import Material

Gather = Callable[[str, tuple[str, ...]], Material]


@dataclass(frozen=True)
class Setting:
    """experiments: that are pooled. is_papers: whether they are the papers' own, without overrides. models: of the runs
    behind it; tasks: that pairs of runs are of; ended: how much of it was run. note: what a reader of a verdict must
    know of the experiment. words: all that in a line."""

    experiments: tuple[str, ...]
    overrides: tuple[str, ...]
    is_papers: bool
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    ended: Ended
    synthetic: bool
    note: str = ""

    @property
    def words(self) -> str:
        """In a line."""
        whose = "the papers' setting" if self.is_papers else "not the papers' setting"
        models = ", ".join(self.models) or "no run yet"
        overrides = f", {' '.join(self.overrides)}" if self.overrides else ""
        mark = "SYNTHETIC, " if self.synthetic else ""
        return f"{mark}{' + '.join(self.experiments)}{overrides}: {models}, {self.ended.words}; {whose}"


@dataclass(frozen=True)
class Finding:
    """ours: each part of the claim by our runs, or each split of it. published: the same by the papers' printed
    numbers, in their own setting alone; None where nothing is printed that says it."""

    claim: Claim
    setting: Setting
    ours: tuple[Judged, ...]
    published: tuple[Judged, ...] | None

    @property
    def verdict(self) -> Verdict:
        """What our runs say."""
        return together([part.verdict for part in self.ours])

    @property
    def so_far(self) -> Verdict:
        """What our runs would say if none were missing."""
        return together([part.so_far for part in self.ours])

    @property
    def is_tested(self) -> bool:
        """Whether there is a pair of runs, or one that divergence took away."""
        return any(part.n or part.lost for part in self.ours)

    @property
    def published_verdict(self) -> Verdict | None:
        """Whether the papers' own numbers support their sentence, by the same rule."""
        return None if self.published is None else together([part.verdict for part in self.published])

    def to_json(self) -> dict[str, Any]:
        """Everything, pairs included."""
        return {
            **{"claim": self.claim.name, "sentence": self.claim.sentence, "source": self.claim.source},
            **{"how": self.claim.how, "setting": {**asdict(self.setting), "words": self.setting.words}},
            "ours": {"verdict": self.verdict, "so_far": self.so_far, "parts": [part_json(part) for part in self.ours]},
            "published": None
            if self.published is None
            else {"verdict": self.published_verdict, "parts": [part_json(part) for part in self.published]},
        }


def part_json(part: Judged) -> dict[str, Any]:
    """A part with all that was computed of it."""
    return {
        **{"words": part.words, "verdict": part.verdict, "so_far": part.so_far, "complete": part.complete},
        **{"effect": part.effect, "median": part.median, "unit": part.unit, "by_task": part.by_task},
        **{"interval": part.interval, "p": part.p, "seeds": part.seeds, "n": part.n, "holding": part.holding},
        **{"margin": part.margin, "counted": part.counted, "lost": [asdict(one) for one in part.lost]},
        "without_task": part.without_task,
        "pairs": [asdict(pair) for pair in part.pairs],
        "differences": [asdict(pair) for pair in part.differences],
    }


def findings(claim: Claim, gather: Gather, overrides: Sequence[str] = (), only: Sequence[str] = ()) -> list[Finding]:
    """A claim in the papers' setting, and in each of our own that has runs.

    gather: an experiment's material under overrides. overrides: laid on every run. only: these experiments, of those
    the claim is tested on; all without.
    """
    own = tuple(overrides)
    found = []
    papers = tuple(name for name in claim.papers if not only or name in only)
    if papers:
        found.append(_finding(claim, [gather(name, own) for name in papers], own, True))
    for name in claim.own:
        if only and name not in only:
            continue
        one = _finding(claim, [gather(name, own)], own, False)
        if one.is_tested or only:
            found.append(one)
    return found


NOTES = {
    "mini_glue": "its rates were chosen on STS-B, with seed 0 and, of each method's two best, seeds 1 and 2 too",
    "mini_init_best": "each variant at the best of twelve pairs of rates, chosen with seed 0, which is among the three",
    "mini_sb": "one task, at the lower of the two best rates of lr_finalists, at which seeds differ by some 4 points",
    "mini_math": "its rates were not searched: LoRA-XS's is of its Table 3, the others' are ours",
}
"""What a reader of a verdict on an experiment must know of it."""


def _finding(claim: Claim, materials: Sequence[Material], overrides: tuple[str, ...], papers: bool) -> Finding:
    runs = {run.signature for one in materials for run in one.trained}
    records = {s: one.records[s] for one in materials for s in runs & one.records.keys()}
    ended = ended_of(runs, records)
    judged = [both for part in claim.parts for both in _judged(part, materials, ended.is_complete)]
    ours, published = tuple(mine for mine, _ in judged), tuple(theirs for _, theirs in judged)
    models = dict.fromkeys(_model(record.run["spec"]) for record in records.values())
    setting = Setting(
        experiments=tuple(one.name for one in materials),
        overrides=overrides,
        is_papers=papers and not overrides,
        models=tuple(sorted(filter(None, models))),
        tasks=tuple(sorted(_tasks([pair for part in ours for pair in part.differences], materials))),
        ended=ended,
        synthetic=any(one.synthetic for one in materials),
        note="; ".join(NOTES[one.name] for one in materials if one.name in NOTES),
    )
    return Finding(claim, setting, ours, published if papers and any(part.n for part in published) else None)


def _judged(part: Part, materials: Sequence[Material], complete: bool) -> list[tuple[Judged, Judged]]:
    """By our runs and by the printed numbers, once for each split that either names."""
    ours, printed = (_pairs(part, materials, whose) for whose in (True, False))
    splits = list(dict.fromkeys(one.split for one in (*printed, *ours))) or [""]
    judged = []
    for split in splits:
        words = f"{part.words}: {split}" if split else part.words
        mine, theirs = ([one for one in found if one.split == split] for found in (ours, printed))
        lost = tuple(one for one in mine if isinstance(one, Lost))
        judged.append(
            (
                Judged(words, _numbers(mine), part.margin, part.counted, lost, complete),
                Judged(words, _numbers(theirs), part.margin, part.counted),
            )
        )
    return judged


def _pairs(part: Part, materials: Sequence[Material], ours: bool) -> Found:
    return [
        replace(one, place=f"{material.name}: {one.place}") if isinstance(one, Pair) and len(materials) > 1 else one
        for material in materials
        for one in part.pairs(material, ours)
    ]


def _numbers(found: Found) -> tuple[Pair, ...]:
    return tuple(one for one in found if isinstance(one, Pair))


def _tasks(pairs: Sequence[Pair], materials: Sequence[Material]) -> set[str]:
    """In words, of the pairs, else of the runs behind them."""
    tasks = {run.signature: run.cell.get("task", "") for one in materials for run in one.runs}
    named = {pair.task or label("task", tasks.get(run, "")) for pair in pairs for run in pair.runs}
    return named - {""}


def _model(spec: dict[str, Any]) -> str:
    return str(spec.get("model", {}).get("name", ""))
