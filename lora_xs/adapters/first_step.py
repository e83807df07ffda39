"""LoRA-SB's estimated first step of full fine-tuning, as `lora_xs.adapters.update` made it and factors take it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lora_xs.errors import UserError


@dataclass
class UpdateEstimate:
    """The estimated first step ΔW of every adapted weight. `take` empties it, layer by layer."""

    gradients: dict[str, Tensor]
    """By module name: G [out, in], fp32 (fp64 over an fp64 base) on the CPU, summed over batches and processes."""
    eta: float
    """The step's learning rate."""
    sign: bool
    """True: ΔW = −η·sign(G), AdamW's first step. False: ΔW = −η·G, SGD's."""
    batches: int
    seconds: float
    bytes: int
    """Of all G together: what the estimate needs beside the model and one batch's activations."""
    peak_bytes: int
    """Most memory in use (the GPU's where there is one, else this process's RAM) above what was in use before. An
    upper bound: where the process had used more earlier, it is that."""

    def take(self, name: str) -> Tensor:
        """ΔW [out, in] of module `name`, whose G is given up for it. Raises UserError for a module without one."""
        if name not in self.gradients:
            raise UserError(f"{name}: the estimate has no gradient for it; make one with this adapter's target_modules")
        gradient = self.gradients.pop(name)
        if not torch.isfinite(gradient).all():
            raise UserError(f"{name}: the estimated gradient is not finite; load the base in float32 or bfloat16")
        return (gradient.sign_() if self.sign else gradient).mul_(-self.eta)
