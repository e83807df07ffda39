"""A whole test answered into a file that survives being killed. Needs no torch of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.errors import UserError
from lora_xs.evaluation.generation.decoding import Decoding, Engine, PromptTooLong
from lora_xs.evaluation.generation.store import Generation, append, header_of, open_file

if TYPE_CHECKING:
    from lora_xs.data.question_set import QuestionSet


def answer(
    questions: QuestionSet,
    engine: Engine,
    decoding: Decoding,
    file: Path,
    *,
    settings: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Complete every question, each exactly once over all attempts, and return them in the questions' order.

    `file` grows by whole batches; called again after an interruption, only what is missing is generated. `settings`
    is whatever else decides the completions (model, adapter, dtype): JSON, kept in the header. `progress` is told how
    many are done, of how many. Raises UserError where the file was made from other questions or settings (naming what
    differs), for two questions of one id, and PromptTooLong with the question's id.
    """
    asked = questions.questions
    index = {question.id: number for number, question in enumerate(asked)}
    if len(index) != len(asked):
        raise UserError(f"test {questions.name}: two questions have the same id; ids must differ")
    done = {generation.id: generation for generation in open_file(file, header_of(questions, decoding, settings))}
    strangers = [name for name in done if name not in index]
    if strangers:
        raise UserError(f"{file}: holds {strangers[0]!r}, which test {questions.name} does not ask; delete that line")
    if progress is not None:
        progress(len(done), len(asked))
    if len(done) == len(asked):
        return [done[question.id] for question in asked]
    prompts = [question.prompt for question in asked]
    try:
        for batch in engine.batches(prompts, decoding, {index[name] for name in done}):
            made = [
                Generation(
                    asked[number].id,
                    prompts[number],
                    completion.text,
                    completion.tokens,
                    completion.finish,
                    asked[number].gold,
                )
                for number, completion in batch
            ]
            append(file, made)
            done |= {generation.id: generation for generation in made}
            if progress is not None:
                progress(len(done), len(asked))
    except PromptTooLong as error:
        raise error.named(asked[error.index].id) from None
    return [done[question.id] for question in asked]
