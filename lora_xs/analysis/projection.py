"""LoRA-XS App. F (Table 11): the change that full fine-tuning made, projected on a part of W's singular vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lora_xs.analysis.record import PROJECTION
from lora_xs.analysis.study import Change, Study, Window

if TYPE_CHECKING:
    from torch import Tensor

    from lora_xs.adapters.window import TruncatedSvd
    from lora_xs.analysis.finetuned import FineTuned


class Projection(Study):
    """W' becomes W + U_k U_kᵀ (W' − W) V_k V_kᵀ, with W = U Σ Vᵀ the weight before fine-tuning; other modules keep W'.

    A matrix has min(out, in) singular triplets: where it is not square, even all of them leave out what of the change
    lies outside W's column (or row) space.
    """

    name = PROJECTION
    modules = ("query", "intermediate.dense", "output.dense")
    fractions = (0.01, 0.1, 0.25, 0.5)

    def decomposed(self, tuned: FineTuned, name: str) -> Tensor:
        return tuned.base[name].to(tuned.device)

    def leaves_unchanged(self, windows: Mapping[str, Window]) -> bool:
        return False

    def changed(self, tuned: FineTuned, name: str, svd: TruncatedSvd, window: Window) -> Change:
        base = tuned.base[name].to(tuned.device)  # [out, in]
        delta = tuned.weight(name) - base
        projected = project(delta, svd, window.slice)
        return Change(base + projected, _square(projected), _square(delta))


def project(delta: Tensor, svd: TruncatedSvd, kept: slice) -> Tensor:
    """U_k U_kᵀ ΔW V_k V_kᵀ `[out, in]` for the triplets `kept`."""
    left, right = svd.U[:, kept], svd.Vh[kept]  # [out, k], [k, in]
    return left @ (left.mT @ delta @ right.mT) @ right


def _square(matrix: Tensor) -> float:
    """‖·‖² (Frobenius)."""
    return float(matrix.double().square().sum())
