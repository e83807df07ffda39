"""LoRA-XS App. E (Tables 8–10): of a module kind's fine-tuned weights, only a part of the singular values kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lora_xs.analysis.finetuned import MODULES
from lora_xs.analysis.record import SPECTRUM
from lora_xs.analysis.study import Change, Study, Window

if TYPE_CHECKING:
    from torch import Tensor

    from lora_xs.adapters.window import TruncatedSvd
    from lora_xs.analysis.finetuned import FineTuned


class Spectrum(Study):
    """W' = U Σ Vᵀ becomes U_k Σ_k V_kᵀ for the k triplets of a window; biases stay. All of them kept is W' itself."""

    name = SPECTRUM
    modules = MODULES
    fractions = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

    def decomposed(self, tuned: FineTuned, name: str) -> Tensor:
        return tuned.weight(name)

    def leaves_unchanged(self, windows: Mapping[str, Window]) -> bool:
        return all(window.whole for window in windows.values())

    def changed(self, tuned: FineTuned, name: str, svd: TruncatedSvd, window: Window) -> Change:
        kept = svd.S[window.slice].double().square().sum()
        return Change(keep_part(svd, window.slice), float(kept), float(svd.S.double().square().sum()))


def keep_part(svd: TruncatedSvd, kept: slice) -> Tensor:
    """U_k Σ_k V_kᵀ `[out, in]` of the triplets `kept`."""
    weight: Tensor = (svd.U[:, kept] * svd.S[kept]) @ svd.Vh[kept]  # [out, k] @ [k, in]
    return weight
