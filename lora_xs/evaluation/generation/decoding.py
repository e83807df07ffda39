"""How a model is asked, and what comes back: the words that engines and their callers share. Needs no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from lora_xs.errors import UserError

Finish = Literal["eos", "stop", "length"]


@dataclass(frozen=True)
class Decoding:
    """Greedy (`beams` = 1) or beam search for at most `max_new_tokens`, ended early by any string of `stop`.

    Stop strings are looked for in what was generated, never in the prompt. Beam search adds log-probabilities and
    divides them by the number of tokens, as transformers does by default (length penalty 1, no early stopping).
    """

    max_new_tokens: int
    beams: int = 1
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise UserError for numbers below 1 and empty stop strings."""
        for name in ("max_new_tokens", "beams"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"decoding: {name}={value!r} must be a whole number of at least 1")
        if isinstance(self.stop, str) or any(not isinstance(text, str) or not text for text in self.stop):
            raise UserError(f"decoding: stop={self.stop!r} must be strings with at least one character each")


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    text: without special tokens, cut before the first stop string. tokens: how many were generated, an end token and
    those of a stop string included. finish: an end token, a stop string, or the limit.
    """

    text: str
    tokens: int
    finish: Finish


class Engine(Protocol):
    """Something that completes prompts, the same way every time for the same prompts."""

    def complete(self, prompts: Sequence[str], decoding: Decoding) -> list[Completion]:
        """One completion a prompt, in the prompts' order. Raises PromptTooLong before anything is generated."""
        ...

    def batches(
        self, prompts: Sequence[str], decoding: Decoding, skip: Collection[int] = (), share: tuple[int, int] = (0, 1)
    ) -> Iterator[list[tuple[int, Completion]]]:
        """The same, batch by batch as they are finished, each completion with its prompt's index.

        The division into batches is that of all `prompts`; those with an index in `skip` are then left out, so a set
        that was interrupted between two batches goes on with the very batches it would have had. share: of what is
        left, (i, n) takes every n-th batch, beginning with the i-th.
        """
        ...


class PromptTooLong(UserError):
    """A prompt that leaves the model no room for `max_new_tokens`; `index` is its place. Prompts are never cut."""

    def __init__(self, index: int, tokens: int, max_new_tokens: int, context: int, name: str | None = None) -> None:
        self.index, self.tokens, self.max_new_tokens, self.context = index, tokens, max_new_tokens, context
        super().__init__(
            f"{name or f'prompt {index}'}: {tokens} tokens and {max_new_tokens} new ones are more than the model's "
            f"{context}; lower max_new_tokens or leave the question out"
        )

    def named(self, name: str) -> PromptTooLong:
        """The same with the question's own name."""
        return PromptTooLong(self.index, self.tokens, self.max_new_tokens, self.context, name)


def check_room(lengths: Sequence[int], decoding: Decoding, context: int | None) -> None:
    """Raise PromptTooLong for the first of the prompts (`lengths` in tokens) that does not fit `context`, if known."""
    for index, tokens in enumerate(lengths):
        if context is not None and tokens + decoding.max_new_tokens > context:
            raise PromptTooLong(index, tokens, decoding.max_new_tokens, context)


def plan_batches(lengths: Sequence[int], decoding: Decoding, tokens_at_once: int) -> list[list[int]]:
    """Indices of the prompts, longest first, cut into batches that hold at most `tokens_at_once` tokens.

    A batch holds (its longest prompt + max_new_tokens) · beams · rows, and at least one row. The longest come first:
    if memory does not suffice, it shows at once. Equal lengths keep their order.
    """
    waiting = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    planned = []
    while waiting:
        width = (lengths[waiting[0]] + decoding.max_new_tokens) * decoding.beams
        rows = max(1, tokens_at_once // width)
        planned.append(waiting[:rows])
        waiting = waiting[rows:]
    return planned
