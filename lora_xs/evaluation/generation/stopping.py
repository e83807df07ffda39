"""When a completion ends, and its text: end tokens, stop strings, tokens into text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SLACK = 4
"""Tokens looked at beyond a stop string's bytes: a character may be torn over up to four of them."""


def end_ids(tokenizer: PreTrainedTokenizerBase, of_model: Any = None) -> list[int]:
    """The tokens that end a completion: the tokenizer's own and those of the model's generation configuration.

    Training ends a response with the tokenizer's; some models (LLaMA3's chat versions) were pretrained with more.
    """
    found = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    if of_model is not None:
        found |= set(of_model) if isinstance(of_model, list | tuple) else {of_model}
    return sorted(int(token) for token in found)


def written_text(tokenizer: PreTrainedTokenizerBase, before: Sequence[int], written: Sequence[int]) -> str:
    """The text of the tokens `written`, special ones left out, as it continues the prompt's tokens `before`.

    Decoded behind the prompt's last token: on their own, SentencePiece's tokens lose a leading blank.
    """
    anchor = list(before[-1:])
    head = _decode(tokenizer, anchor)
    whole = _decode(tokenizer, [*anchor, *written])
    return whole[len(head) :] if whole.startswith(head) else _decode(tokenizer, list(written))


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first of the strings, and whether there was one."""
    places = [place for place in (text.find(string) for string in stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


class StopStrings(StoppingCriteria):
    """True for the rows whose newest tokens complete a stop string; the prompt, `width` tokens, is not looked at.

    transformers' own `stop_strings` match into the prompt as well ("### Response" + ":"), and index the whole
    vocabulary first.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], width: int) -> None:
        self.tokenizer, self.stop, self.width = tokenizer, stop, width
        self.window = window(stop)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """`[rows]`, for `input_ids` `[rows, prompt and new tokens]`."""
        tails = input_ids[:, max(self.width, input_ids.shape[1] - self.window) :].tolist()
        found = [cut_at_stop(_decode(self.tokenizer, tail), self.stop)[1] for tail in tails]
        return torch.tensor(found, device=input_ids.device)


class Rows(StoppingCriteria):
    """Follows the rows of a batch token by token and ends the round when enough of them have ended.

    transformers goes on computing rows that have ended until all have. This criterion reports that all rows have ended
    as soon as `share` of them have: the caller then drops those and goes on with the others.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, rows: int, ends: Sequence[int], stop: Sequence[str], share: float
    ) -> None:
        self.tokenizer, self.ends, self.stop, self.share = tokenizer, frozenset(ends), stop, share
        self.window = window(stop)
        self.written: list[list[int]] = [[] for _ in range(rows)]  # tokens of each row, up to and with its last
        self.ended: list[bool] = [False] * rows
        self.running = list(range(rows))  # the rows of the current round, in its order

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """`[rows of the round]`: all False, or all True at the end of the round."""
        for row, token in zip(self.running, input_ids[:, -1].tolist(), strict=True):
            if not self.ended[row]:
                self.written[row].append(token)
                self.ended[row] = token in self.ends or self._stops(row)
        over = sum(self.ended[row] for row in self.running) >= max(1.0, self.share * len(self.running))
        return torch.full((len(self.running),), over, device=input_ids.device)

    def next_round(self) -> list[int]:
        """Drop the rows that have ended; the places, in the last round, of those that go on."""
        places = [place for place, row in enumerate(self.running) if not self.ended[row]]
        self.running = [self.running[place] for place in places]
        return places

    def _stops(self, row: int) -> bool:
        if not self.stop:
            return False
        return cut_at_stop(_decode(self.tokenizer, self.written[row][-self.window :]), self.stop)[1]


def window(stop: Sequence[str]) -> int:
    """How many of the newest tokens can hold a stop string: as many as its bytes, and some slack."""
    return max((len(string.encode()) for string in stop), default=0) + SLACK


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
