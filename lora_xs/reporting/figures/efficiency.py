"""Score against trainable parameters (LoRA-XS Figure 1), without the head, as the papers count."""

from __future__ import annotations

from lora_xs.reporting.cells import own_parameters as own_parameters
from lora_xs.reporting.cells import printed_parameters as printed_parameters
from lora_xs.reporting.figures.panels import WHISKERS
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.scatter import draw, panels_of
from lora_xs.reporting.material import Material

KIND = "efficiency"


def efficiency(material: Material) -> list[Picture]:
    """One figure, or none where no number has a count of parameters."""
    panels = panels_of(material.cells, own_parameters, printed_parameters, levels=True)
    if not panels:
        return []
    caption = (
        f"{material.heading}. Score against trainable parameters without the head (log scale), a panel a test; levels "
        f"are methods that train all or none of the base model. {WHISKERS} {material.how}"
    )
    figure = draw(material, panels, material.heading, "trainable parameters, without the head")
    return [Picture(f"{material.name}-{KIND}", KIND, material.name, caption, figure)]
