"""Products in which each row of a batch has its own small matrix: the adapter's R, and a head's weight.

A row of the batch owns one block of a module's input: `[rows, tokens, in]`, `[rows, in]` and the flattened
`[rows·tokens, in]` all read as `[rows, -1, in]`, and so does a batch whose rows were repeated one behind the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lora_xs.adapters.tuner import LoraXsLayer
from lora_xs.adapters.tuner.product import without_autocast
from lora_xs.errors import UserError

Forward = Callable[..., Tensor]


@dataclass(frozen=True)
class Rows:
    """Rows of a batch: `count` of the user's own, each `copies` times, one behind the other."""

    count: int
    copies: int = 1

    def check(self, x: Tensor, where: str) -> None:
        """Raise UserError unless x, input of the module `where`, is `[rows, …, in]` or `[rows·tokens, in]`."""
        first = x.shape[0] if x.dim() > 1 else 1
        fits = first in (self.count, self.count * self.copies) or (x.dim() == 2 and first % self.count == 0)
        if x.dim() < 2 or not fits:
            copies = f" of {self.copies} copies" if self.copies > 1 else ""
            raise UserError(
                f"{where}: an input of {list(x.shape)} where {self.count} users{copies} were named; "
                "name one user a row of the batch (copies=num_beams where generate repeats rows)"
            )


def rowwise_adapter(layer: LoraXsLayer, adapter_name: str, R: Tensor, s: float, rows: Rows) -> Forward:
    """A forward for `layer`: y = W x + b + s·B R_row A x, A and B those of `adapter_name`.

    R [rows, r, r], or [1, r, r] where all rows have the same. Of the layer's own adapters none is active in it.
    """
    A, B = layer.lora_A[adapter_name], layer.lora_B[adapter_name]  # [r, in], [out, r]
    R_t = R.transpose(1, 2)

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if layer._disable_adapters:
            return layer.base_layer(x, *args, **kwargs)
        _refuse_training(layer, layer.module_name)
        rows.check(x, layer.module_name)
        y = layer.base_layer(x, *args, **kwargs).contiguous()
        dtype = y.dtype
        with without_autocast(y):
            h = linear(x.reshape(-1, x.shape[-1]).to(dtype), A.to(dtype))  # [rows·tokens, r]
            g = torch.bmm(h.view(R_t.shape[0], -1, h.shape[-1]), R_t.to(dtype))  # [rows, tokens, r]
            y.view(-1, y.shape[-1]).addmm_(g.view(-1, h.shape[-1]), B.to(dtype).t(), alpha=s)
        return y

    return forward


def rowwise_linear(module: nn.Linear, name: str, weight: Tensor, bias: Tensor | None, rows: Rows) -> Forward:
    """A forward for `module`, named `name`: y = W_row x + b_row; weight [rows or 1, out, in], bias [rows or 1, out]."""
    W_t = weight.transpose(1, 2)

    def forward(x: Tensor) -> Tensor:
        _refuse_training(module, name)
        rows.check(x, name)
        with without_autocast(x):
            blocks = x.reshape(weight.shape[0], -1, x.shape[-1])  # [rows, tokens, in]
            y = torch.bmm(blocks, W_t.to(x.dtype))  # [rows, tokens, out]
            if bias is not None:
                y += bias[:, None].to(x.dtype)
        return y.view(*x.shape[:-1], weight.shape[1])

    return forward


def _refuse_training(module: nn.Module, name: str) -> None:
    if module.training or torch.is_grad_enabled():
        raise UserError(f"{name}: adapters by row are for inference; call model.eval(), and train one user at a time")
