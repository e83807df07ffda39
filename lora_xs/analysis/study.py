"""An analysis of fine-tuned weights, point by point: some modules changed, the validation rows scored, a line written.

A point is a kind of module, a fraction of the singular triplets and which of them; each is scored once, also over
several attempts, and two points that come to the same weights share their score.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.analysis.finetuned import MODULES, FineTuned, finished_run, rebuild
from lora_xs.analysis.points import PointFile
from lora_xs.analysis.record import FOLDER, SCHEMA, AnalysisRecord, file_name, read_analysis, write_analysis
from lora_xs.atomic import guarded
from lora_xs.environment import describe_environment
from lora_xs.errors import UserError
from lora_xs.lease import Lease
from lora_xs.records import Record

if TYPE_CHECKING:
    from torch import Tensor

    from lora_xs.adapters.window import TruncatedSvd

SUBSETS = ("top", "middle", "bottom")
Point = dict[str, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """Which of a matrix's k descending singular triplets are kept: `count` from `first` on."""

    first: int
    count: int
    k: int

    @classmethod
    def of(cls, fraction: float, subset: str, k: int) -> Window:
        """The window of a fraction (0 to 1), to the nearest whole triplet; a fraction above 0 keeps one at least."""
        count = max(1 if fraction > 0 else 0, math.floor(fraction * k + 0.5))
        first = {"top": 0, "middle": (k - count) // 2, "bottom": k - count}[subset]
        return cls(first if count else 0, count, k)

    @property
    def whole(self) -> bool:
        """Whether all triplets are kept."""
        return self.count == self.k

    @property
    def slice(self) -> slice:
        """Its indices."""
        return slice(self.first, self.first + self.count)


@dataclass(frozen=True)
class Change:
    """A module's new weight `[out, in]`, and how much of a whole it keeps: two squared Frobenius norms."""

    weight: Tensor
    kept: float
    whole: float


@dataclass(frozen=True)
class Settings:
    """What is asked of an analysis; None: what the paper did, or all rows."""

    which: str = "best"  # adapter: of the best or the last evaluation
    rows: int | None = None
    modules: tuple[str, ...] | None = None
    fractions: tuple[float, ...] | None = None


class Study:
    """What tells the analyses apart. modules, fractions: the paper's."""

    name: str
    modules: tuple[str, ...]
    fractions: tuple[float, ...]

    def decomposed(self, tuned: FineTuned, name: str) -> Tensor:
        """The matrix `[out, in]` of module `name` whose singular triplets are chosen from."""
        raise NotImplementedError

    def leaves_unchanged(self, windows: Mapping[str, Window]) -> bool:
        """Whether these windows stand for the fine-tuned weights as they are."""
        raise NotImplementedError

    def changed(self, tuned: FineTuned, name: str, svd: TruncatedSvd, window: Window) -> Change:
        """The module's weight for this window. svd: all triplets of `decomposed`."""
        raise NotImplementedError

    def run(
        self, folder: Path, settings: Settings, *, data: str | None = None, command: str = "",
        tell: Callable[[Point], None] = lambda point: None,
    ) -> tuple[AnalysisRecord, bool]:  # fmt: skip
        """Find all points asked for that are not there yet, and write the record; (record, whether all was there).

        folder: the run's. data: where its rows lie now. tell: hears of each new point. Raises UserError for a folder
        that is no finished full fine-tuning run and for modules or fractions there are not, RunBusy where another
        process is at it.
        """
        record, spec = finished_run(folder)
        asked = [
            {"module": module, "retained_fraction": fraction, "subset": subset}
            for module in settings.modules or self.modules
            for fraction in checked(settings.fractions or self.fractions)
            for subset in SUBSETS
        ]
        title = file_name(self.name, settings.which, settings.rows)
        header = {
            **{"schema": SCHEMA, "analysis": self.name, "signature": record.signature},
            **{"run_started": record.run["started"], "which": settings.which, "rows": settings.rows},
        }
        done = read_analysis(folder / FOLDER / f"{title}.json")
        if done is not None and done.run["started"] == record.run["started"] and not missing(asked, done.points):
            return done, True
        with Lease(folder / FOLDER) as lease, guarded(lease.check):
            found = PointFile(folder / FOLDER / f"{title}.jsonl", header)
            tuned = rebuild(folder, record, spec, which=settings.which, rows=settings.rows, data=data)
            for module in dict.fromkeys(point["module"] for point in asked):
                if module not in tuned.kinds:
                    raise UserError(f"--modules {module}: this model has none; choose from {', '.join(tuned.kinds)}")
            started = time.perf_counter()
            unchanged = tuned.scores()
            log.info("unchanged: %s (%.1f s)", unchanged, time.perf_counter() - started)
            for point in self._points(tuned, unchanged, missing(asked, found.points), found.points):
                lease.check()
                found.append(point)
                tell(point)
            result = self._record(record, settings, found.points, unchanged, tuned.inputs, command)
            write_analysis(folder, result)
        return result, False

    def _points(
        self, tuned: FineTuned, unchanged: Mapping[str, Any], questions: Sequence[Point], before: Sequence[Point]
    ) -> Iterator[Point]:
        """An answer to each question. before: points that were answered by former attempts."""
        from lora_xs.adapters.store import FactorStore

        store = FactorStore()
        triplets: dict[str, TruncatedSvd] = {}
        known = {_state(*self._windows(tuned, point)): point for point in before}
        for question in questions:
            began = time.perf_counter()
            share: float | None
            module, windows = self._windows(tuned, question)
            state = _state(module, windows)
            if self.leaves_unchanged(windows):
                share, scores = 1.0, dict(unchanged)
            elif state in known:
                share, scores = known[state]["share"], known[state]["scores"]
            else:
                if not windows.keys() <= triplets.keys():  # those of one kind at a time: memory
                    triplets = {
                        name: store.truncation(self.decomposed(tuned, name), window.k, name=name).svd
                        for name, window in windows.items()
                    }
                changes = {name: self.changed(tuned, name, triplets[name], w) for name, w in windows.items()}
                with tuned.replaced({name: change.weight for name, change in changes.items()}):
                    scores = tuned.scores()
                whole = sum(change.whole for change in changes.values())
                share = sum(change.kept for change in changes.values()) / whole if whole else None
            point = {
                **question, "triplets": max(window.count for window in windows.values()), "share": share,
                "scores": scores, "seconds": round(time.perf_counter() - began, 3),
            }  # fmt: skip
            known[state] = point
            yield point

    def _windows(self, tuned: FineTuned, point: Point) -> tuple[str, dict[str, Window]]:
        """The point's module and, of each of its matrices, the window."""
        names = tuned.kinds.get(point["module"], ())
        sides = {name: min(tuned.base[name].shape) for name in names}
        fraction, subset = point["retained_fraction"], point["subset"]
        return point["module"], {name: Window.of(fraction, subset, k) for name, k in sides.items()}

    def _record(
        self, record: Record, settings: Settings, points: Sequence[Point], unchanged: dict[str, Any],
        inputs: dict[str, Any], command: str,
    ) -> AnalysisRecord:  # fmt: skip
        ordered = sorted(points, key=_order)
        return AnalysisRecord(
            name=self.name,
            run={key: record.run[key] for key in ("signature", "spec", "seed", "started")},
            settings={
                "which": settings.which,
                "rows": settings.rows,
                "modules": list(dict.fromkeys(point["module"] for point in ordered)),
                "fractions": sorted({point["retained_fraction"] for point in ordered}),
            },
            points=ordered,
            unchanged=unchanged,
            seconds=round(sum(point["seconds"] for point in points), 3),
            command=command,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=describe_environment() | inputs,
        )


def missing(asked: Sequence[Point], there: Sequence[Point]) -> list[Point]:
    """Of the points asked for, those that are not there, each once and in order."""
    have = {_place(point) for point in there}
    wanted = {_place(point): point for point in asked}
    return [point for place, point in wanted.items() if place not in have]


def checked(fractions: Sequence[float]) -> Sequence[float]:
    """The fractions, all from 0 to 1. Raises UserError otherwise."""
    for fraction in fractions:
        if not 0 <= fraction <= 1:
            raise UserError(f"--fractions {fraction}: a fraction of the singular values is from 0 to 1, e.g. 0.25")
    return fractions


def _place(point: Point) -> tuple[str, float, str]:
    return point["module"], point["retained_fraction"], point["subset"]


def _order(point: Point) -> tuple[int, str, float, int]:
    """Modules as the paper lists them, then fractions, then top to bottom."""
    module = point["module"]
    place = MODULES.index(module) if module in MODULES else len(MODULES)
    return place, module, point["retained_fraction"], SUBSETS.index(point["subset"])


def _state(module: str, windows: Mapping[str, Window]) -> tuple[str, tuple[Window, ...]]:
    """What of a point decides the weights."""
    return module, tuple(windows.values())
