"""The engine on vLLM (extra `vllm`): a base model's folder and, beside it, an adapter exported as plain LoRA.

Written after vLLM's public interface and tested against a stand-in of it; not run on a GPU by this project's tests.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lora_xs.errors import UserError
from lora_xs.evaluation.generation.decoding import Completion, Decoding, Finish, check_room
from lora_xs.evaluation.generation.stopping import cut_at_stop, end_ids

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks vLLM can be told to make room for."""


class VllmEngine:
    """Greedy decoding by vLLM, which batches by itself; prompts are tokenised here, as the other engine's are.

    End tokens are the tokenizer's and those of the folder's generation configuration, nothing else of which is used.
    """

    def __init__(
        self, base: str | Path, adapter: str | Path | None = None, *, dtype: str = "bfloat16", rows_at_once: int = 512
    ) -> None:
        """`adapter`: a folder written by `lora_xs.export_lora`, or None for the base alone.

        `rows_at_once` prompts are handed over, and later stored, together. Raises UserError where vLLM is missing, or
        the adapter is not a plain LoRA or of a rank vLLM cannot hold.
        """
        rank = None if adapter is None else _lora_rank(Path(adapter))  # first: vLLM takes minutes to start
        library, request = _vllm()
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        self.tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        self.context = getattr(AutoConfig.from_pretrained(base), "max_position_embeddings", None)
        has_own = (Path(base) / "generation_config.json").is_file()
        self.ends = end_ids(self.tokenizer, GenerationConfig.from_pretrained(base).eos_token_id if has_own else None)
        self.rows_at_once = rows_at_once
        options = {} if rank is None else {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
        self._sampling = library.SamplingParams
        self._adapter = None if adapter is None else request.LoRARequest("adapter", 1, str(adapter))
        self._engine = library.LLM(
            model=str(base), dtype=dtype, seed=0, trust_remote_code=False, generation_config="vllm", **options
        )

    def complete(self, prompts: Sequence[str], decoding: Decoding) -> list[Completion]:
        """One completion a prompt, in the prompts' order. Raises PromptTooLong before anything is generated."""
        return [completion for batch in self.batches(prompts, decoding) for _, completion in batch]

    def batches(
        self, prompts: Sequence[str], decoding: Decoding, skip: Collection[int] = (), share: tuple[int, int] = (0, 1)
    ) -> Iterator[list[tuple[int, Completion]]]:
        """The same, `rows_at_once` prompts at a time in the prompts' order; see `Engine.batches`.

        Raises UserError for beam search, which vLLM's batched engine does not do, and for a share: it takes the whole.
        """
        if share != (0, 1):
            raise UserError("engine=vllm answers in one process; hand it the whole set")
        if decoding.beams != 1:
            raise UserError(f"evaluation.beams={decoding.beams} with engine=vllm: it decodes greedily; use engine=hf")
        ids = self.tokenizer(list(prompts))["input_ids"] if prompts else []
        check_room([len(row) for row in ids], decoding, self.context)
        sampling = self._sampling(
            temperature=0.0, max_tokens=decoding.max_new_tokens, stop=list(decoding.stop), stop_token_ids=self.ends
        )
        for start in range(0, len(ids), self.rows_at_once):
            batch = [index for index in range(start, min(start + self.rows_at_once, len(ids))) if index not in skip]
            if not batch:
                continue
            inputs = [{"prompt_token_ids": ids[index]} for index in batch]
            outputs = self._engine.generate(inputs, sampling, lora_request=self._adapter, use_tqdm=False)
            yield [
                (index, _completion(output.outputs[0], decoding)) for index, output in zip(batch, outputs, strict=True)
            ]


def _completion(output: Any, decoding: Decoding) -> Completion:
    """Of vLLM's output: `stop_reason` is a stop string, or an end token's id, or None for the tokenizer's own."""
    finish: Finish = "length"
    if output.finish_reason != "length":
        finish = "stop" if isinstance(output.stop_reason, str) else "eos"
    return Completion(cut_at_stop(output.text, decoding.stop)[0], len(output.token_ids), finish)


def _vllm() -> tuple[Any, Any]:
    """vLLM and its module of LoRA requests. Raises UserError where it is not installed."""
    try:
        return import_module("vllm"), import_module("vllm.lora.request")
    except ImportError as error:
        raise UserError(
            f"evaluation.engine=vllm needs vLLM ({error}); run `pip install 'lora-xs[vllm]'`, or use engine=hf"
        ) from None


def _lora_rank(adapter: Path) -> int:
    """The least rank that vLLM has room for and the adapter fits in."""
    file = adapter / "adapter_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        ranks = [int(config["r"]), *(config.get("rank_pattern") or {}).values()]
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{file}: no readable LoRA configuration there; give a folder written by export_lora") from None
    if config.get("peft_type") != "LORA":
        raise UserError(
            f"{file}: an adapter of type {config.get('peft_type')}, not LORA; export it as plain LoRA first"
        )
    for room in RANKS:
        if max(ranks) <= room:
            return room
    raise UserError(f"{file}: rank {max(ranks)} is above {RANKS[-1]}, the most vLLM holds; use engine=hf")
