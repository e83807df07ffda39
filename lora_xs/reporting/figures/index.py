"""Which experiment gets which figures."""

from __future__ import annotations

from collections.abc import Callable

from lora_xs.reporting.figures.adapter_bytes import adapter_bytes
from lora_xs.reporting.figures.against_setting import rates, samples
from lora_xs.reporting.figures.bars import bars
from lora_xs.reporting.figures.comparison import comparison
from lora_xs.reporting.figures.costs import costs
from lora_xs.reporting.figures.curves import epoch_curves, loss_curves
from lora_xs.reporting.figures.efficiency import efficiency
from lora_xs.reporting.figures.learning_curves import learning_curves
from lora_xs.reporting.figures.overview import overview
from lora_xs.reporting.figures.picture import Picture
from lora_xs.reporting.figures.rate_grids import rate_grids
from lora_xs.reporting.figures.retention import projection, retention
from lora_xs.reporting.material import Material

Drawer = Callable[[Material], list[Picture]]
HEADLINE: tuple[Drawer, ...] = (efficiency, adapter_bytes, costs)
GRIDS = (
    *("table12_init_grid_sst2", "table13_init_grid_mrpc", "table14_init_grid_cola", "table15_init_grid_qnli"),
    *("table18_top_vs_bottom_cola", "table19_top_vs_bottom_qnli", "table20_top_vs_bottom_mrpc"),
    *("table21_top_vs_bottom_sst2", "table22_singular_values_sst2", "table23_singular_values_mrpc"),
    *("table24_singular_values_cola", "table25_singular_values_qnli"),
)
FIGURES: dict[str, tuple[Drawer, ...]] = {
    "figure01_parameter_efficiency": (efficiency,),
    "table01_glue": (adapter_bytes, costs),  # its parameters are Figure 1's
    "table02_commonsense": HEADLINE,
    "table03_math": HEADLINE,
    "table04_init_summary": (comparison,),
    "table05_svd_overhead": (bars,),
    "table06_runtime": (bars,),
    "table08_singular_value_retention_mrpc": (retention,),
    "table09_singular_value_retention_sst2": (retention,),
    "table10_singular_value_retention_mnli": (retention,),
    "table11_delta_projection": (projection,),
    **dict.fromkeys(GRIDS, (rate_grids,)),
    "table16_init_learning_curve": (learning_curves, epoch_curves),
    "sb_table01_math": HEADLINE,
    "sb_table02_commonsense": HEADLINE,
    "sb_table03_glue": HEADLINE,
    "sb_table04_decomposed_matrix": (comparison,),
    "sb_table05_init_overhead": (bars,),
    "sb_table06_inference_cost": (bars,),
    "sb_table_v4_init_samples": (samples,),
    "sb_figure02_training_loss": (loss_curves,),
    "sb_figure03_orthonormality": (comparison,),
    "mini_glue": (overview, efficiency, adapter_bytes, costs),
    "mini_math": (loss_curves, epoch_curves, adapter_bytes, costs),
    "mini_commonsense": (loss_curves, adapter_bytes, costs),
    "mini_init": (rate_grids,),
    "mini_init_best": (comparison,),
    "mini_init_edge": (rate_grids,),
    "mini_sb": (comparison, samples),
    "mini_spectrum": (retention, projection),
    "lr_finalists": (rates,),
    "lr_sensitivity": (rates,),
    "demo": (efficiency, adapter_bytes, loss_curves, costs),
}
WITHOUT = ("table07_glue_hparams", "table17_init_hparams")
"""Settings: there is nothing to draw."""


def draw_figures(material: Material) -> list[Picture]:
    """Every figure of an experiment that has anything to show."""
    return [picture for drawer in FIGURES.get(material.name, ()) for picture in drawer(material)]
