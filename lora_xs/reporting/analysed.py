"""What analyses found, as numbers of cells: LoRA-XS's Tables 8–11, and LoRA-SB's Table 6, which is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_xs.analysis.record import COST, AnalysisRecord, find_analyses
from lora_xs.records import Record
from lora_xs.reporting.counted import counted_value

COORDINATES = ("module", "retained_fraction", "subset")
ANALYSIS = "analysis"
COUNTED = "counted"
"""What stands for a signature where no run is behind a number."""


class Analysed:
    """Analyses by run. Only those of all validation rows count: a part of them is another measurement."""

    def __init__(self, found: Sequence[AnalysisRecord] = ()) -> None:
        self._found = {
            (analysis.run["signature"], analysis.name, analysis.settings["which"]): analysis
            for analysis in found
            if analysis.name != COST and analysis.settings.get("rows") is None
        }

    def value(self, names: Sequence[str], record: Record, place: Mapping[str, str], of: str) -> float | None:
        """The run's score at `place` (module, retained_fraction, subset), in points of the task's main metric.

        names: the experiment's analyses; of several, the one that the coordinate `analysis` names. of: the adapter,
        `best` or `last`.
        """
        name = place.get(ANALYSIS, names[0])
        analysis = self._of(name, record, of)
        if analysis is None or not all(key in place for key in COORDINATES):
            return None
        module, fraction, subset = (place[key] for key in COORDINATES)
        for point in analysis.points:
            same = point["module"] == module and point["subset"] == subset
            if same and point["retained_fraction"] == float(fraction):
                score = point["scores"].get(record.run["spec"]["task"]["main_metric"])
                return None if score is None else float(score)
        return None

    def places(self, names: Sequence[str], record: Record | None, of: str) -> list[dict[str, str]]:
        """Coordinates of all points of a run, in the analyses' order; none without its record."""
        if record is None:
            return []
        return [
            {
                **({ANALYSIS: name} if len(names) > 1 else {}),
                **{"module": point["module"], "retained_fraction": f"{point['retained_fraction']:g}"},
                "subset": point["subset"],
            }
            for name in names
            if (analysis := self._of(name, record, of)) is not None
            for point in analysis.points
        ]

    def _of(self, name: str, record: Record, of: str) -> AnalysisRecord | None:
        """The run's analysis, if it is of the weights that the record is of."""
        analysis = self._found.get((record.signature, name, "last" if of == "last" else "best"))
        return analysis if analysis is not None and analysis.run["started"] == record.run["started"] else None


def analyses_below(*folders: Path) -> Analysed:
    """All analyses below the folders; of two of one run, the later in path order."""
    return Analysed([analysis for folder in folders for analysis in find_analyses(folder)])


def counted(names: Sequence[str], place: Mapping[str, str]) -> float | None:
    """The number at `place` where an experiment's numbers are counted, not measured; else None."""
    return counted_value(place) if COST in names else None
