"""BERT and RoBERTa without padding: between embeddings and head only real tokens are computed, rows end to end.

Outside, batches stay padded `[rows, longest]`. Where the layers begin, the rows' real tokens are laid end to end, and
every linear layer multiplies those alone. Attention takes the rows length by length, as many of one length as there are
one after the other, so it needs no mask either; with flash attention on a GPU it is the kernel's own form. A
classification head reads the first token of each row, so behind the last layer's attention only first tokens go on:
the others' gradients would be zero there.

Losses and gradients are those of padded rows up to rounding. Dropout draws its masks for the tokens computed: of the
same distribution, but not the same masks as with padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import flash_attention_mask

from lora_xs.errors import UserError
from lora_xs.models.attention import FLASH
from lora_xs.spec import RunSpec
from lora_xs.spec.layout import padding_of

BY_ROW = "sdpa_by_row"
"""The attention's name among transformers' own; it stands in for `sdpa`."""

BUILDS = ("bert", "roberta")


def unpad_as_asked(model: PreTrainedModel, spec: RunSpec) -> bool:
    """`compute_unpadded` where `trainer.padding` says or allows so; whether it does now.

    Raises UserError where `free` is asked of a model of another build.
    """
    if padding_of(spec, torch.cuda.is_available()) != "free":
        return False
    if model.config.model_type in BUILDS:
        compute_unpadded(model)
        return True
    if spec.trainer.padding == "free":
        raise UserError(
            f"trainer.padding=free is not known for a {model.config.model_type}, but for {', '.join(BUILDS)}; "
            "use trainer.padding=auto"
        )
    return False


def compute_unpadded(model: PreTrainedModel) -> None:
    """Let `model`, one of `BUILDS` with a classification head, compute real tokens alone from now on.

    Its inputs and logits stay what they were; hidden states between its layers are `[1, tokens, hidden]`. Raises
    ValueError for attention other than `sdpa`, which becomes `BY_ROW`, and flash attention.
    """
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(BY_ROW)
    elif model.config._attn_implementation != FLASH:
        raise ValueError(f"{model.config._attn_implementation} attention does not keep rows laid end to end apart")
    encoder: Any = model.base_model.encoder
    last, layout = encoder.layer[-1].attention, _Layout()
    encoder.register_forward_pre_hook(layout.lay_end_to_end, with_kwargs=True)
    last.register_forward_pre_hook(layout.note_starts, with_kwargs=True)
    last.output.register_forward_pre_hook(layout.keep_first)
    encoder.register_forward_hook(layout.one_token_a_row)


class _Layout:
    """The hooks. `starts` `[rows]` is noted in the very pass that uses it: a checkpointed layer may be passed again."""

    starts: Tensor

    def lay_end_to_end(self, encoder: nn.Module, args: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """`[rows, longest, hidden]` to `[1, tokens, hidden]`, and the mask to the rows' lengths."""
        states, mask = args[0], named["attention_mask"]
        rows, longest, _ = states.shape
        states = states.flatten(0, 1)
        lengths = [longest] * rows
        if mask is not None:  # bool [rows, longest]; None where nothing is padded
            lengths = mask.sum(dim=1).tolist()
            states = states.index_select(0, mask.flatten().nonzero().squeeze(1))
        bounds = torch.tensor([0, *lengths], device=states.device).cumsum(0)
        layout = {
            "row_lengths": lengths,
            "row_starts": bounds[:-1],
            "cu_seq_lens_q": bounds.int(),
            "cu_seq_lens_k": bounds.int(),
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
        }
        return (states[None],), {**named, "attention_mask": None, **layout}

    def note_starts(self, attention: nn.Module, args: Any, named: dict[str, Any]) -> None:
        """Of the last layer, before it attends."""
        self.starts = named["row_starts"]

    def keep_first(self, output: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What was attended to, and the residual, `[1, tokens, hidden]` to `[1, rows, hidden]`."""
        return tuple(states.index_select(1, self.starts) for states in args)

    def one_token_a_row(self, encoder: nn.Module, args: Any, output: Any) -> Any:
        """`[1, rows, hidden]` to `[rows, 1, hidden]`, where pooler and heads look for first tokens."""
        output.last_hidden_state = output.last_hidden_state.transpose(0, 1)
        return output


def attend_by_row(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row_lengths: Sequence[int],
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax attention inside each of the rows that `query`, `key`, `value` `[1, heads, tokens, d]` are made of.

    Gives `[1, tokens, heads, d]`, as transformers' attentions do, and no weights.
    """
    runs = [(length, len(list(rows))) for length, rows in groupby(row_lengths)]
    sizes = [length * rows for length, rows in runs]
    found = []
    of_runs = zip(*(states[0].transpose(0, 1).split(sizes) for states in (query, key, value)), strict=True)
    for (length, rows), run in zip(runs, of_runs, strict=True):
        q, k, v = (states.unflatten(0, (rows, length)).transpose(1, 2) for states in run)  # [rows, heads, length, d]
        attended = scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        found.append(attended.transpose(1, 2).flatten(0, 1))  # [rows · length, heads, d]
    return torch.cat(found)[None], None


AttentionInterface.register(BY_ROW, attend_by_row)
AttentionMaskInterface.register(BY_ROW, flash_attention_mask)  # bool [rows, longest], or None where nothing is padded
