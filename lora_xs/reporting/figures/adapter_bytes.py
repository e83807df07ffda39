"""Adapter bytes against score, from records alone: no paper prints the size of a file."""

from __future__ import annotations

import statistics

from lora_xs.reporting.cells import Cell
from lora_xs.reporting.figures.panels import WHISKERS
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.scatter import draw, panels_of
from lora_xs.reporting.material import Material

KIND = "bytes"


def adapter_bytes(material: Material) -> list[Picture]:
    """One figure, or none without runs."""

    def size(cell: Cell) -> float | None:
        behind = (material.records[one] for one in cell.signatures if one in material.records)
        found = [record.train["adapter_bytes"] for record in behind if record.train.get("adapter_bytes")]
        return statistics.median(found) if found else None

    panels = panels_of(material.cells, size, lambda cell: None, levels=False)
    if not panels:
        return []
    caption = (
        f"{material.heading}. Score against the bytes of the saved adapter (log scale), a panel a test. The papers "
        f"print no such bytes. {WHISKERS} {material.how}"
    )
    figure = draw(material, panels, f"{material.heading}: bytes of the adapter file", "bytes of the saved adapter")
    return [Picture(f"{material.name}-{KIND}", KIND, material.name, caption, figure)]
