"""A whole test answered into a file that survives being killed, by one process or several. No torch of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_xs.errors import UserError
from lora_xs.evaluation.generation.decoding import Completion, Decoding, Engine, PromptTooLong
from lora_xs.evaluation.generation.store import Generation, append, header_of, open_file
from lora_xs.processes import first, of_each, place, told

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

    Of several processes all call this and share the batches; the first writes them down and has the result, the others
    return nothing.

    `file` grows by whole batches; called again after an interruption, only what is missing is generated. `settings`
    is whatever else decides the completions (model, adapter, dtype): JSON, kept in the header. `progress` is told how
    many are done, of how many. Raises UserError where the file was made from other questions or settings (naming what
    differs), for two questions of one id, and PromptTooLong with the question's id.
    """
    asked = questions.questions
    index = {question.id: number for number, question in enumerate(asked)}
    if len(index) != len(asked):
        raise UserError(f"test {questions.name}: two questions have the same id; ids must differ")
    header = header_of(questions, decoding, settings)
    done: dict[str, Generation] = {}  # the first process's

    def open_it() -> list[str]:
        done.update((generation.id, generation) for generation in open_file(file, header))
        strangers = [name for name in done if name not in index]
        if strangers:
            raise UserError(
                f"{file}: holds {strangers[0]!r}, which test {questions.name} does not ask; delete that line"
            )
        tell()
        return list(done)

    def keep(made: Sequence[tuple[int, Completion]]) -> None:
        answered = [(asked[number], completion) for number, completion in made]
        generations = [Generation(q.id, q.prompt, c.text, c.tokens, c.finish, q.gold) for q, c in answered]
        append(file, generations)
        done.update((generation.id, generation) for generation in generations)
        tell()

    def tell() -> None:
        if progress is not None:
            progress(len(done), len(asked))

    there = told(open_it)
    if len(there) < len(asked):
        skip = {index[name] for name in there}
        try:
            for made in _of_all(engine.batches([q.prompt for q in asked], decoding, skip, place())):
                told(partial(keep, made))
        except PromptTooLong as error:
            raise error.named(asked[error.index].id) from None
    return [done[question.id] for question in asked] if first() else []


def _of_all(batches: Iterator[list[tuple[int, Completion]]]) -> Iterator[list[tuple[int, Completion]]]:
    """A batch of each process at a time, in their order, which is that of a process that is alone."""

    def following() -> list[tuple[int, dict[str, Any]]]:
        return [(number, asdict(completion)) for number, completion in next(batches, ())]

    while made := [one for part in of_each(following) for one in part]:
        yield [(number, Completion(**fields)) for number, fields in made]
