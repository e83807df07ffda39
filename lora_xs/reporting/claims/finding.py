"""A claim, tested: what our runs say in one setting, what the papers' own numbers say, and what that setting was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lora_xs.reporting.cells import Behind, Cell
from lora_xs.reporting.claims.claim import Claim
from lora_xs.reporting.claims.paired import Judged, Pair, Verdict, together
from lora_xs.reporting.material import Material

Gather = Callable[[str, tuple[str, ...]], Material]


@dataclass(frozen=True)
class Setting:
    """experiments: that are pooled. is_papers: whether they are the papers' own, without overrides. models: of the runs
    behind it; finished, planned: runs. words: all that in a line."""

    experiments: tuple[str, ...]
    overrides: tuple[str, ...]
    is_papers: bool
    models: tuple[str, ...]
    finished: int
    planned: int
    synthetic: bool

    @property
    def words(self) -> str:
        """In a line."""
        whose = "the papers' setting" if self.is_papers else "not the papers' setting"
        models = ", ".join(self.models) or "no run yet"
        overrides = f", {' '.join(self.overrides)}" if self.overrides else ""
        runs = f"{self.finished} of {self.planned} runs"
        mark = "SYNTHETIC, " if self.synthetic else ""
        return f"{mark}{' + '.join(self.experiments)}{overrides}: {models}, {runs}; {whose}"


@dataclass(frozen=True)
class Finding:
    """ours: each part of the claim by our runs. published: by the papers' printed numbers, in their own setting alone;
    None where nothing is printed that says it."""

    claim: Claim
    setting: Setting
    ours: tuple[Judged, ...]
    published: tuple[Judged, ...] | None

    @property
    def verdict(self) -> Verdict:
        """What our runs say."""
        return together([part.verdict for part in self.ours])

    @property
    def published_verdict(self) -> Verdict | None:
        """Whether the papers' own numbers support their sentence, by the same rule."""
        return None if self.published is None else together([part.verdict for part in self.published])

    def to_json(self) -> dict[str, Any]:
        """Everything, pairs included."""
        return {
            **{"claim": self.claim.name, "sentence": self.claim.sentence, "source": self.claim.source},
            **{"how": self.claim.how, "setting": {**asdict(self.setting), "words": self.setting.words}},
            "ours": {"verdict": self.verdict, "parts": [part_json(part) for part in self.ours]},
            "published": None
            if self.published is None
            else {"verdict": self.published_verdict, "parts": [part_json(part) for part in self.published]},
        }


def part_json(part: Judged) -> dict[str, Any]:
    """A part with all that was computed of it."""
    return {
        **{"words": part.words, "verdict": part.verdict, "effect": part.effect, "unit": part.unit, "n": part.n},
        **{"interval": part.interval, "p": part.p, "seeds": part.seeds, "holding": part.holding},
        **{"margin": part.margin, "counted": part.counted, "pairs": [asdict(pair) for pair in part.pairs]},
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
        material = gather(name, own)
        if own == () and name in MORE_SEEDS and material.records:
            material = pooled([material, *(gather(name, more) for more in MORE_SEEDS[name])])
        one = _finding(claim, [material], own, False)
        if any(part.n for part in one.ours) or only:
            found.append(one)
    return found


MORE_SEEDS = {"mini_init": (("seed=1",), ("seed=2",))}
"""Experiments of one seed whose best cells are run again with others."""


def pooled(materials: Sequence[Material]) -> Material:
    """Several seeds of an experiment as one: the readings of a place stand together."""
    first, *others = materials
    cells = list(first.cells)
    for other in others:
        by_place = {tuple(sorted(cell.place.items())): cell for cell in other.cells}
        cells = [_with(cell, by_place.get(tuple(sorted(cell.place.items())))) for cell in cells]
    runs: dict[str, Behind] = {run.signature: run for one in materials for run in one.runs}
    return replace(first, cells=tuple(cells), runs=tuple(runs.values()))


def _with(cell: Cell, other: Cell | None) -> Cell:
    if other is None:
        return cell
    known = {reading.signature for reading in cell.readings}
    fresh = tuple(reading for reading in other.readings if reading.signature not in known)
    return replace(cell, readings=cell.readings + fresh, planned=cell.planned + len(fresh))


def _finding(claim: Claim, materials: Sequence[Material], overrides: tuple[str, ...], papers: bool) -> Finding:
    ours = _judged(claim, materials, True)
    published = _judged(claim, materials, False) if papers else ()
    runs = {run.signature for one in materials for run in one.trained}
    records = {s: one.records[s] for one in materials for s in runs & one.records.keys()}
    models = dict.fromkeys(_model(record.run["spec"]) for record in records.values())
    setting = Setting(
        experiments=tuple(one.name for one in materials),
        overrides=overrides,
        is_papers=papers and not overrides,
        models=tuple(sorted(filter(None, models))),
        finished=len(records),
        planned=len(runs),
        synthetic=any(one.synthetic for one in materials),
    )
    return Finding(claim, setting, ours, published if any(part.n for part in published) else None)


def _judged(claim: Claim, materials: Sequence[Material], ours: bool) -> tuple[Judged, ...]:
    judged = []
    for part in claim.parts:
        pairs: list[Pair] = []
        for one in materials:
            prefix = f"{one.name}: " if len(materials) > 1 else ""
            pairs += [replace(pair, place=prefix + pair.place) for pair in part.pairs(one, ours)]
        judged.append(Judged(part.words, tuple(pairs), part.margin, part.counted))
    return tuple(judged)


def _model(spec: dict[str, Any]) -> str:
    return str(spec.get("model", {}).get("name", ""))
