"""The engine on transformers' `generate`: batched, left-padded, with a key-value cache, greedy or beam search."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, StoppingCriteriaList

from lora_xs.evaluation.generation.decoding import Completion, Decoding, check_room, plan_batches
from lora_xs.evaluation.generation.stopping import Rows, StopStrings, cut_at_stop, end_ids, written_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class HfEngine:
    """Completes prompts with a model in memory: plain, merged, or a PeftModel whose adapter is in its layers.

    The model runs in evaluation mode and in its own dtype (no autocast), with a key-value cache whatever its
    configuration says. Nothing of the model's generation configuration is used but its end tokens, which count beside
    the tokenizer's. Prompts get the tokenizer's own special tokens (BOS) and are never cut. Greedy decoding takes the
    token with the largest logit (of equal ones the first): one result for the same batches; in other batches sums are
    rounded differently, which matters only where two logits nearly agree.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tokens_at_once: int = 16384,
        drop_at: float = 0.25,
    ) -> None:
        """`tokens_at_once`: how many tokens, prompts and new ones over all beams, the cache may hold.

        `drop_at`: a greedy batch drops the rows that have ended as soon as they are this share of it; 1 keeps them.
        """
        self.drop_at = drop_at
        self.model = plain_model(model)
        self.tokenizer = tokenizer
        self.tokens_at_once = tokens_at_once
        self.ends = end_ids(tokenizer, self.model.generation_config.eos_token_id)
        pad = tokenizer.pad_token_id
        self.pad = pad if pad is not None else (self.ends[0] if self.ends else 0)  # masked out, so any will do

    def complete(self, prompts: Sequence[str], decoding: Decoding) -> list[Completion]:
        """One completion a prompt, in the prompts' order. Raises PromptTooLong before anything is generated."""
        found = {index: completion for batch in self.batches(prompts, decoding) for index, completion in batch}
        return [found[index] for index in range(len(prompts))]

    def batches(
        self, prompts: Sequence[str], decoding: Decoding, skip: Collection[int] = (), share: tuple[int, int] = (0, 1)
    ) -> Iterator[list[tuple[int, Completion]]]:
        """The same by batches, longest prompts first; see `Engine.batches`."""
        ids = self.tokenizer(list(prompts))["input_ids"] if prompts else []
        lengths = [len(row) for row in ids]
        check_room(lengths, decoding, context_of(self.model))
        planned = plan_batches(lengths, decoding, self.tokens_at_once)
        left = [rest for batch in planned if (rest := [index for index in batch if index not in skip])]
        first, step = share
        for batch in left[first::step]:
            rows = [ids[index] for index in batch]
            with torch.inference_mode(), evaluating(self.model), _own_defaults(self.model):
                written = self._greedy(rows, decoding) if decoding.beams == 1 else self._beams(rows, decoding)
            yield [
                (index, self._completion(ids[index], tokens, decoding))
                for index, tokens in zip(batch, written, strict=True)
            ]

    def _greedy(self, prompts: list[list[int]], decoding: Decoding) -> list[list[int]]:
        """The new tokens of each row, its end token included. Rows that have ended are dropped now and then."""
        ids, mask = self._padded(prompts)
        rows = Rows(self.tokenizer, len(prompts), self.ends, decoding.stop, self.drop_at)
        cache = empty_cache(self.model)
        width = ids.shape[1] + decoding.max_new_tokens
        while rows.running and ids.shape[1] < width:
            config = self._config(max_new_tokens=width - ids.shape[1])
            result = self._generate(ids, mask, config, [rows], past_key_values=cache)
            kept = torch.tensor(rows.next_round(), device=ids.device, dtype=torch.long)
            ids = result.sequences[kept]  # [rows still running, tokens]
            mask = nn.functional.pad(mask[kept], (0, ids.shape[1] - mask.shape[1]), value=1)
            if rows.running and ids.shape[1] < width:
                cache.batch_select_indices(kept)
        return rows.written

    def _beams(self, prompts: list[list[int]], decoding: Decoding) -> list[list[int]]:
        """The new tokens of each row's best beam, its end token included."""
        ids, mask = self._padded(prompts)
        criteria = [StopStrings(self.tokenizer, decoding.stop, ids.shape[1])] if decoding.stop else []
        config = self._config(
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.beams,
            eos_token_id=self.ends or None,
            length_penalty=1.0,
            early_stopping=False,
        )
        cache = empty_cache(self.model)
        if ids.shape[1] > 1:  # left to itself, `generate` computes every prompt once a beam
            before = mask[:, :-1]
            self.model(
                input_ids=ids[:, :-1],
                attention_mask=before,
                position_ids=(before.cumsum(1) - 1).clamp(min=0),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache.batch_repeat_interleave(decoding.beams)
        result = self._generate(ids, mask, config, criteria, past_key_values=cache)
        lengths = (result.beam_indices >= 0).sum(dim=1).tolist()  # -1: no token there
        new = result.sequences[:, ids.shape[1] :].tolist()
        return [row[:length] for row, length in zip(new, lengths, strict=True)]

    def _generate(self, ids: Tensor, mask: Tensor, config: GenerationConfig, criteria: list[Any], **more: Any) -> Any:
        return self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            stopping_criteria=StoppingCriteriaList(criteria),
            **more,
        )

    def _config(self, **settings: Any) -> GenerationConfig:
        return GenerationConfig(
            do_sample=False, use_cache=True, pad_token_id=self.pad, return_dict_in_generate=True, **settings
        )

    def _padded(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask `[rows, longest prompt]`, padded on the left."""
        width = max(len(row) for row in prompts)
        device = next(self.model.parameters()).device
        ids = torch.tensor([[self.pad] * (width - len(row)) + row for row in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
        return ids, mask

    def _completion(self, prompt: list[int], written: list[int], decoding: Decoding) -> Completion:
        text, stopped = cut_at_stop(written_text(self.tokenizer, prompt, written), decoding.stop)
        ended = bool(written) and written[-1] in self.ends
        return Completion(text, len(written), "stop" if stopped else "eos" if ended else "length")


def plain_model(model: nn.Module) -> Any:
    """The transformers model inside a PeftModel, with the adapter's layers in it; any other model itself."""
    inner: Any = model
    return inner.get_base_model() if hasattr(model, "get_base_model") else inner


def empty_cache(model: Any) -> DynamicCache:
    """A key-value cache that grows, with the sliding windows the model's layers have."""
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def context_of(model: Any) -> int | None:
    """How many positions the model has, or None where its configuration does not say."""
    return getattr(model.config, "max_position_embeddings", None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module then gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _own_defaults(model: Any) -> Iterator[None]:
    """No generation configuration of the model's: `generate` fills from it whatever it is not told."""
    kept, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept
