"""A cell in words: ours, published and how they compare, apart. Plain text; renderers escape it."""

from __future__ import annotations

from dataclasses import dataclass

from lora_xs.evaluation.direction import LOWER_IS_BETTER
from lora_xs.reporting.analysed import COUNTED
from lora_xs.reporting.cells import AVERAGED, SETTING, Cell
from lora_xs.reporting.noise import Status

PARTS = ("ours", "published", "difference")
"""The columns of a cell where anything of its table is published; else it has the first alone."""
OPERATIONS = ("macs", "flops")
LEGEND: dict[Status, str] = {
    "reproduced": "ours and the published number differ by at most one standard error of their difference",
    "within noise": "by at most two",
    "off": "by more",
    "partial": "runs are missing: k/n are there",
    "not run": "no run is finished",
    "diverged": "every run that ended diverged",
    "not built": "nothing here stands behind it; the footnote says why",
    "ours alone": "nothing is published",
    "not compared": "seconds have no tolerance: they are a machine's",
    "as published": "a setting that our runs are planned with",
}


@dataclass(frozen=True)
class CellText:
    """Three strings that never share a column; empty where there is nothing to say."""

    ours: str
    published: str
    comparison: str


def text_of(cell: Cell | None) -> CellText:
    """The words of a cell; of None, nothing."""
    if cell is None:
        return CellText("", "", "")
    return CellText(_ours(cell), _published(cell), _comparison(cell))


def number_text(value: float, cell: Cell) -> str:
    """A number with the digits its kind deserves: points 2, losses 4, seconds 1, operations as the papers write."""
    quantity = cell.place.get("quantity", "")
    if cell.metric == SETTING:
        return f"{value:g}"
    if quantity in OPERATIONS:
        return next(f"{value / scale:.2f}{unit}" for unit, scale in _UNITS if abs(value) >= scale or scale == 1)
    if quantity.endswith("seconds") or cell.metric == "training":
        return f"{value:.1f}"
    return f"{value:.4f}" if cell.metric in LOWER_IS_BETTER else f"{value:.2f}"


_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3), ("", 1.0))


def count_text(cell: Cell) -> str:
    """`n=5`, or `3/5` where runs are missing."""
    return f"n={cell.n}" if cell.n >= cell.planned else f"{cell.n}/{cell.planned}"


def signed(value: float, cell: Cell) -> str:
    """A difference with its sign; none where nothing is left of it."""
    text = number_text(abs(value), cell)
    return ("" if not text.strip("0.") else "−" if value < 0 else "+") + text


def _ours(cell: Cell) -> str:
    of_one_row = cell.metric == AVERAGED and cell.planned <= 1
    if cell.ours is None:
        if of_one_row:
            return cell.status if cell.status == "not built" else "missing"
        what = cell.status if cell.status in ("not built", "diverged") else "missing"
        return what if cell.status == "not built" or not cell.planned else f"{what} ({cell.n}/{cell.planned})"
    value = number_text(cell.ours, cell)
    if cell.metric == SETTING or of_one_row or cell.signatures == (COUNTED,):
        return value
    spread = f" ± {number_text(cell.spread, cell)}" if cell.spread is not None else ""
    return f"{value}{spread} ({count_text(cell)})"


def _published(cell: Cell) -> str:
    if cell.published is None:
        return "–"
    spread = f" ± {cell.published.printed_std}" if cell.published.printed_std else ""
    return cell.published.printed + spread


def _comparison(cell: Cell) -> str:
    """Difference, status and, of a status that has one, the tolerance: `−0.80, off (±0.62)`."""
    if cell.published is None:
        return ""
    if cell.metric == SETTING and cell.difference == 0:
        return cell.status
    parts = [signed(cell.difference, cell)] if cell.difference is not None else []
    allowed = f" (±{number_text(cell.allowed.standard_error, cell)})" if cell.allowed and cell.metric != SETTING else ""
    return ", ".join([*parts, cell.status + allowed])
