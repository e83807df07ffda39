"""A trained model put to its task's tests: answered into files, scored, and summed up for the record."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm.auto import tqdm

from lora_xs.evaluation.answers import score_generations
from lora_xs.evaluation.generation import Engine, HfEngine, VllmEngine, answer
from lora_xs.evaluation.generation.store import header_of
from lora_xs.evaluation.readings import decoding_of, reads_completions, reads_likelihoods
from lora_xs.processes import first, told

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lora_xs.data.question_set import QuestionSet
    from lora_xs.evaluation.generation.decoding import Decoding
    from lora_xs.evaluation.generation.store import Generation
    from lora_xs.evaluation.likelihood import ChoiceScores
    from lora_xs.spec import RunSpec

PLAIN_LORA = "plain_lora"  # the export that vLLM reads, beside the adapters


class Stop(Protocol):
    """Asked between batches whether to go on."""

    def raise_if_asked(self) -> None: ...


def examine(
    spec: RunSpec,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    tests: Sequence[QuestionSet],
    folder: Path,
    *,
    base: Path,
    stop: Stop,
) -> dict[str, dict[str, Any]]:
    """By test, what the record says of it; completions lie in `folder/generations`, likelihoods in `likelihoods`.

    Of several processes all call this: they share a test's generation, the first alone does the rest.

    model: carries the selected adapter; with `evaluation.merged` the adapter is folded into the base here, for good.
    base: the base model's folder, for engines that load it themselves. After an interruption completions go on where
    they stood; a test's likelihoods are kept where they were all there, otherwise made anew. `points` is the headline:
    `evaluation.scorer`'s verdict on completions where there are any, else the choice of the highest likelihood; n and
    its binomial standard error (points) stand beside it.
    """
    evaluation = spec.evaluation
    if evaluation.merged and hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.eval()
    engine: Engine | None = None
    results: dict[str, dict[str, Any]] = {}
    for test in tests:
        result: dict[str, Any] = {"n": len(test.questions)}
        if reads_likelihoods(spec, test):
            file = folder / "likelihoods" / f"{test.name}.jsonl"
            result |= told(partial(_by_likelihood, spec, model, tokenizer, test, file, stop))
        if reads_completions(spec, test):
            engine = engine or _engine(spec, model, tokenizer, folder, base)
            result |= _by_generation(spec, engine, test, folder / "generations" / f"{test.name}.jsonl", stop)
        results[test.name] = result
    return results


def _by_generation(spec: RunSpec, engine: Engine, test: QuestionSet, file: Path, stop: Stop) -> dict[str, Any]:
    evaluation = spec.evaluation
    decoding = decoding_of(spec, test)
    began = time.perf_counter()
    shown = first() and sys.stderr.isatty()
    with tqdm(total=len(test.questions), desc=test.name, unit="row", disable=not shown) as bar:

        def progress(done: int, of: int) -> None:
            bar.update(done - bar.n)
            stop.raise_if_asked()

        settings = {"signature": spec.signature, "engine": evaluation.engine, "merged": evaluation.merged}
        generations = answer(test, engine, decoding, file, settings=settings, progress=progress)
    return told(lambda: _scored(spec, test, decoding, generations, time.perf_counter() - began))


def _scored(
    spec: RunSpec, test: QuestionSet, decoding: Decoding, generations: Sequence[Generation], seconds: float
) -> dict[str, Any]:
    scores = score_generations(test.name, generations)
    return {
        "points": scores.points[spec.evaluation.scorer],
        "standard_error": scores.standard_error[spec.evaluation.scorer],
        "scorer": spec.evaluation.scorer,
        "scores": dict(scores.points),
        "no_answer": scores.no_answer,
        "published_not_strict": scores.differing("published", "strict"),
        "self_compared": scores.self_compared,
        "unjudged": scores.unjudged,
        "decoding": {**asdict(decoding), "stop": list(decoding.stop)},
        "cut_by_limit": sum(generation.finish == "length" for generation in generations),
        "tokens": sum(generation.tokens for generation in generations),
        "seconds": round(seconds, 3),  # of this attempt
    }


def _by_likelihood(
    spec: RunSpec, model: Any, tokenizer: Any, test: QuestionSet, file: Path, stop: Stop
) -> dict[str, Any]:
    from lora_xs.evaluation.likelihood import choice_log_likelihoods
    from lora_xs.evaluation.likelihood_file import read_likelihoods, write_likelihoods

    began = time.perf_counter()
    header = header_of(test, None, {"signature": spec.signature, "merged": spec.evaluation.merged})
    scores = read_likelihoods(file, header)
    if scores is None:
        scores = choice_log_likelihoods(
            model,
            tokenizer,
            test,
            tokens_at_once=spec.evaluation.generation_tokens,
            progress=lambda done, of: stop.raise_if_asked(),
        )
        write_likelihoods(file, header, scores)

    def points(best: Callable[[ChoiceScores], str | None]) -> float:
        return 100.0 * sum(best(one) == one.gold for one in scores) / len(scores)

    total = points(lambda one: one.best)
    return {
        "points": total,
        "standard_error": math.sqrt(total * (100.0 - total) / len(scores)),
        "scorer": "likelihood",
        "likelihood": {"sum": total, "per_token": points(lambda one: one.best_per_token)},
        "not_finite": sum(not one.finite for one in scores),  # questions with no best choice, counted as wrong
        "likelihood_seconds": round(time.perf_counter() - began, 3),
    }


def _engine(spec: RunSpec, model: Any, tokenizer: Any, folder: Path, base: Path) -> Engine:
    if spec.evaluation.engine == "hf":
        return HfEngine(model, tokenizer, tokens_at_once=spec.evaluation.generation_tokens)
    from lora_xs.adapters.export import export_lora

    adapter = folder / "adapter" / spec.evaluation.select
    if spec.method.name in ("lora_xs", "lora_sb"):
        adapter = folder / "adapter" / PLAIN_LORA
        shutil.rmtree(adapter, ignore_errors=True)  # of a former attempt
        export_lora(model, adapter)
    model.to("cpu")  # the engine loads the base anew and wants the GPU to itself
    return VllmEngine(base, adapter, dtype=spec.model.dtype)
