"""Multiple choice without generating: how likely a model finds each choice's continuation of the prompt.

The tokens are those training would see: prompt and continuation tokenised together, of which as many as the prompt
has alone are not scored. What all continuations of a question have in common is computed once, with the prompt: one
forward pass where they differ in their last token, otherwise a second, short one over its key-value cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lora_xs.errors import UserError
from lora_xs.evaluation.generation.hf import context_of, empty_cache, evaluating, plain_model

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedTokenizerBase

    from lora_xs.data.question_set import Question, QuestionSet


@dataclass(frozen=True)
class ChoiceScores:
    """A question's choices: `log_likelihoods` (natural logarithm, sum over tokens) and scored `tokens` of each."""

    id: str
    gold: str
    choices: tuple[str, ...]
    log_likelihoods: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def finite(self) -> bool:
        """Whether every log-likelihood is a number; where one is not, no choice is the best."""
        return all(map(math.isfinite, self.log_likelihoods))

    @property
    def best(self) -> str | None:
        """The most likely choice (of equal ones the first), None where one is not finite."""
        return self._largest(self.log_likelihoods)

    @property
    def best_per_token(self) -> str | None:
        """The choice with the largest mean log-likelihood a token, None where one is not finite."""
        return self._largest([sum_ / n for sum_, n in zip(self.log_likelihoods, self.tokens, strict=True)])

    def _largest(self, values: Sequence[float]) -> str | None:
        return self.choices[max(range(len(values)), key=lambda place: values[place])] if self.finite else None


@dataclass(frozen=True)
class _Row:
    """A question in tokens: what its choices share, what each has beyond it, and where scoring starts."""

    place: int  # in the question set
    shared: list[int]
    rests: tuple[list[int], ...]  # one a choice, at least one token each
    start: int  # the first scored token's position

    @property
    def size(self) -> int:
        """Tokens held for it: with a second pass each choice has a copy of what is shared."""
        longest = max(len(rest) for rest in self.rests)
        return (len(self.rests) if longest > 1 else 1) * (len(self.shared) + longest)


def choice_log_likelihoods(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: QuestionSet,
    *,
    tokens_at_once: int = 16384,
    progress: Callable[[int, int], None] | None = None,
) -> list[ChoiceScores]:
    """Every choice's log p(continuation | prompt), in the questions' order; the model may be a PeftModel.

    The model runs in its own dtype, log-softmax in fp32. At most `tokens_at_once` tokens are held in a batch, and
    `progress` is told after each how many questions are done, of how many. Raises UserError for a question without
    choices, a continuation that leaves nothing to score, and one that is too long.
    """
    plain = plain_model(model)
    context = context_of(plain)
    rows = [_tokenise(tokenizer, question, place, context) for place, question in enumerate(questions.questions)]
    sums: dict[int, list[float]] = {}
    with torch.inference_mode(), evaluating(plain):
        for batch in _batches(rows, tokens_at_once):
            for row, values in zip(batch, _score(plain, batch), strict=True):
                sums[row.place] = values
            if progress is not None:
                progress(len(sums), len(rows))
    return [
        ChoiceScores(
            question.id,
            question.gold,
            question.choices,
            tuple(sums[row.place]),
            tuple(len(row.shared) + len(rest) - row.start for rest in row.rests),
        )
        for question, row in zip(questions.questions, rows, strict=True)
    ]


def check_question(tokenizer: PreTrainedTokenizerBase, question: Question, context: int | None) -> None:
    """Raise UserError, as `choice_log_likelihoods` does, for a question that cannot be scored."""
    _tokenise(tokenizer, question, 0, context)


def _tokenise(tokenizer: PreTrainedTokenizerBase, question: Question, place: int, context: int | None) -> _Row:
    if not question.choices or len(question.choices) != len(question.continuations):
        raise UserError(f"{question.id}: no choices with a continuation each; score it by generation")
    start = len(tokenizer(question.prompt)["input_ids"])
    whole = tokenizer([question.prompt + text for text in question.continuations])["input_ids"]
    for ids, text in zip(whole, question.continuations, strict=True):
        if not 0 < start < len(ids):
            raise UserError(f"{question.id}: nothing to score in the continuation {text!r} of {start} prompt tokens")
    shared = 0
    while shared < min(map(len, whole)) - 1 and len({ids[shared] for ids in whole}) == 1:
        shared += 1
    if shared == 0:
        raise UserError(f"{question.id}: the prompt ends inside the first token of a choice; lengthen the prompt")
    longest = max(map(len, whole))
    if context is not None and longest > context:
        raise UserError(f"{question.id}: {longest} tokens are more than the model's {context}; leave the question out")
    return _Row(place, whole[0][:shared], tuple(ids[shared:] for ids in whole), start)


def _batches(rows: Sequence[_Row], tokens_at_once: int) -> Iterator[list[_Row]]:
    """Longest first; every row of a batch counts as the longest one's size, at least one row each."""
    waiting = sorted(rows, key=lambda row: (-len(row.shared), row.place))
    while waiting:
        count, largest = 0, 0
        for row in waiting:
            largest = max(largest, row.size)
            if count and largest * (count + 1) > tokens_at_once:
                break
            count += 1
        yield waiting[:count]
        waiting = waiting[count:]


def _score(model: Any, batch: Sequence[_Row]) -> list[list[float]]:
    """Summed log-probabilities of each row's choices."""
    device = next(model.parameters()).device
    width = max(len(row.shared) for row in batch)
    ids = torch.tensor([[0] * (width - len(row.shared)) + row.shared for row in batch], device=device)
    mask = torch.tensor([[0] * (width - len(row.shared)) + [1] * len(row.shared) for row in batch], device=device)
    again = any(len(rest) > 1 for row in batch for rest in row.rests)
    cache = empty_cache(model) if again else None
    common = [max(len(row.shared) - row.start, 0) for row in batch]  # scored tokens that all choices share
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=again,
        logits_to_keep=max(common) + 1,
    ).logits  # [questions, positions that predict a scored token, vocabulary]
    of_shared = _log_probabilities(logits[:, :-1], ids[:, width - max(common) :]).tolist()
    of_rests = _score_rests(model, batch, logits[:, -1], mask, cache)
    scores, rests = [], iter(of_rests)
    for row, tokens, count in zip(batch, of_shared, common, strict=True):
        skipped = max(row.start - len(row.shared), 0)  # of the prompt, where its end is joined with the continuation
        before = sum(tokens[len(tokens) - count :])
        scores.append([before + sum(next(rests)[skipped : len(rest)]) for rest in row.rests])
    return scores


def _score_rests(
    model: Any, batch: Sequence[_Row], last: Tensor, mask: Tensor, cache: DynamicCache | None
) -> list[list[float]]:
    """Log-probabilities `[choices of all questions][tokens]` of what each choice has of its own, padding included.

    `last` `[questions, vocabulary]` are the logits after the shared tokens, `mask` `[questions, shared]` theirs.
    `cache` holds the shared tokens and is used up; None where no choice has more than one token.
    """
    device = last.device
    rests = [rest for row in batch for rest in row.rests]
    width = max(len(rest) for rest in rests)
    ids = torch.tensor([rest + [0] * (width - len(rest)) for rest in rests], device=device)  # [choices, width]
    of = torch.tensor([number for number, row in enumerate(batch) for _ in row.rests], device=device)
    found = _log_probabilities(last[of], ids[:, 0])[:, None]
    if cache is None:
        return found.tolist()
    cache.batch_select_indices(of)
    mask = mask[of]
    given = torch.tensor([[1] * len(rest) + [0] * (width - len(rest)) for rest in rests], device=device)[:, :-1]
    logits = model(
        input_ids=ids[:, :-1],
        attention_mask=torch.cat([mask, given], dim=1),
        position_ids=mask.sum(1, keepdim=True) + torch.arange(width - 1, device=device)[None],
        past_key_values=cache,
        use_cache=True,
    ).logits  # [choices, width - 1, vocabulary]
    return torch.cat([found, _log_probabilities(logits, ids[:, 1:])], dim=1).tolist()


def _log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """log p of the tokens `ids` `[…]` under `logits` `[…, vocabulary]`, in fp32."""
    logits = logits.float()
    return logits.gather(-1, ids[..., None]).squeeze(-1) - logits.logsumexp(-1)
