"""Counted operations beside the printed ones: LoRA-SB's Table 6, number by number, and the lengths they follow from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_xs.analysis.cost import model_spec, operations_of, parameter_table
from lora_xs.analysis.record import COST, AnalysisRecord
from lora_xs.reporting.published import PublishedCell, read_published

TABLE6 = "lora_sb/table06_inference_cost.csv"
UNITS = {"macs": 1, "flops": 2}
"""Floating-point operations count a product and its sum apart."""
CLOSE = 0.01
"""Relative difference up to which a count and a printed number are the same: counters differ in norms and rounding."""


@dataclass(frozen=True)
class Counted:
    """A printed number of Table 6 beside the count. token, row: in the printed quantity's unit (FLOPs are two MACs).
    everything: with attention's scores, R and the head. lengths: tokens a row from which the print follows, as far as
    its digits tell."""

    published: PublishedCell
    token: float
    row: float
    everything: float
    lengths: tuple[float, float]

    @property
    def difference(self) -> float:
        """(count − printed) / printed."""
        return (self.row - self.published.value) / self.published.value

    @property
    def close(self) -> bool:
        """Whether they are the same within a percent."""
        return abs(self.difference) <= CLOSE


def counted_value(place: Mapping[str, str]) -> float | None:
    """The count at a place of Table 6 (model, method, rank, sequence_length, quantity); None where there is none."""
    try:
        operations = operations_of(model_spec(place["model"]), place["method"], int(place["rank"]))
        row = operations.row(int(place["sequence_length"]))
        return float(UNITS[place["quantity"]] * row)
    except (KeyError, ValueError):  # a UserError is a ValueError: a model of no config has no count
        return None


def table6() -> list[Counted]:
    """LoRA-SB's Table 6, number by number."""
    return [_counted(cell) for cell in read_published(TABLE6)]


def _counted(cell: PublishedCell) -> Counted:
    place = cell.place
    operations = operations_of(model_spec(place["model"]), place["method"], int(place["rank"]))
    length, each = int(place["sequence_length"]), UNITS[place["quantity"]]
    token = each * operations.token
    half = cell.value / float(cell.printed[:-1]) * 0.5 * 10 ** -len(cell.printed[:-1].partition(".")[2])
    return Counted(
        published=cell,
        token=token,
        row=each * operations.row(length),
        everything=each * operations.everything(length),
        lengths=((cell.value - half) / token, (cell.value + half) / token),
    )


def lengths_of(model: str) -> tuple[float, float]:
    """The shortest and longest row, in tokens, that Table 6's numbers of `model` follow from, taken as printed."""
    middles = [sum(one.lengths) / 2 for one in table6() if one.published.place["model"] == model]
    return min(middles), max(middles)


def cost_record(times: list[dict[str, Any]]) -> AnalysisRecord:
    """All counts as a record. times: what `lora_xs.reporting.times` found, as it is."""
    points = [
        {
            **{"kind": "operations", "place": dict(one.published.place), "printed": one.published.printed},
            **{"token": one.token, "row": one.row, "everything": one.everything, "difference": one.difference},
            **{"lengths": list(one.lengths), "close": one.close},
        }
        for one in table6()
    ]
    points += [{"kind": "parameters", **vars(one), "bytes": one.bytes, "ratio": one.ratio} for one in parameter_table()]
    points += [{"kind": "time", **time} for time in times]
    return AnalysisRecord(COST, {}, {"close": CLOSE}, points)
