"""What a run does, counted before it starts: steps, tokens, evaluations, questions. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lora_xs.spec import RunSpec
from lora_xs.spec.layout import most_rows, padding_of, rows_at_once
from lora_xs.sweeps.lengths import questions_of, rows_of

OPTIONS = 4.0
"""Answers to compare, each read with its prompt; two to five in the tests here."""

LATE = 2.5
"""A batch of answers goes on until the last one ends: the longest of it, in means. Assumed."""


@dataclass(frozen=True)
class Answering:
    """One test. prefill: prompt tokens in all. steps: forward passes of one token each, of `width` rows and beams.

    cached: tokens whose keys and values are held at once. scored: tokens read to compare given answers, for the
    reading by likelihood.
    """

    name: str
    questions: int
    prefill: float
    steps: int
    width: int
    cached: float
    answer_tokens: float
    scored: float


@dataclass(frozen=True)
class Workload:
    """Counts of one run, over all its processes.

    rows: trained on in an epoch. steps: optimiser steps. micro_rows: rows that a device holds at once. micro_batches:
    forward and backward passes in all. tokens: trained on, computed padding included; longest: of a row; held: of the
    largest micro-batch. unpadded: an encoder computes real tokens alone. response_share: of the tokens, those with
    logits. evaluations: passes over the `validation` tokens (padding apart). estimate_tokens: of LoRA-SB's estimate.
    """

    rows: int
    steps: int
    epochs: float
    micro_rows: int
    micro_batches: float
    tokens: float
    longest: float
    mean_width: float
    held: float
    unpadded: bool
    response_share: float
    evaluations: int
    validation: float
    validation_batches: float
    estimate_tokens: float
    answering: tuple[Answering, ...]


def micro_rows(spec: RunSpec, gpu: bool) -> int:
    """Rows of a micro-batch of one process, as the trainer makes it."""
    most = most_rows(spec, gpu, padding_of(spec, gpu) == "free")
    return rows_at_once(spec, most, spec.trainer.processes)


def workload_of(spec: RunSpec, gpu: bool) -> Workload:
    """Count what `spec` does on a GPU or a CPU."""
    task, trainer, known = spec.task, spec.trainer, rows_of(spec)
    instruction = task.kind == "instruction"
    available = min(known.rows, task.train_rows or known.rows)
    if instruction:  # validation rows are held out of the training file's
        validation = min(task.validation_rows or known.validation_rows, known.rows - 1)
        rows = min(available, known.rows - validation)
    else:
        validation = min(known.validation_rows, task.validation_rows or known.validation_rows)
        rows = available
    per_epoch = math.ceil(rows / trainer.batch_size)
    steps = trainer.max_steps or trainer.epochs * per_epoch
    epochs = steps / per_epoch
    micro = micro_rows(spec, gpu)
    batch = min(trainer.batch_size, rows)
    padding = padding_of(spec, gpu)
    free = padding == "free"
    longest = float(task.max_length) if padding == "max_length" else known.longest(task.max_length)
    if padding == "max_length":
        width = float(task.max_length)
    else:
        width = known.mean(task.max_length) if free else known.padded(task.max_length, batch, micro)
    evaluation_rows = min(spec.evaluation.batch_size, 2 * most_rows(spec, gpu, free) if instruction else 10**9)
    estimated = spec.init.samples or round((spec.init.fraction or 0) * rows)
    return Workload(
        rows=rows,
        steps=steps,
        epochs=epochs,
        micro_rows=micro,
        micro_batches=epochs * math.ceil(rows / micro),
        tokens=epochs * rows * width,
        longest=longest,
        mean_width=width,
        held=known.together(task.max_length, micro) if free else micro * longest,
        unpadded=free and not instruction,
        response_share=known.response_share,
        evaluations=_evaluations(spec, steps, per_epoch, instruction) if validation else 0,
        validation=validation * known.mean(task.max_length),
        validation_batches=math.ceil(validation / evaluation_rows),
        estimate_tokens=(estimated if spec.method.name == "lora_sb" else 0) * known.mean(task.max_length),
        answering=tuple(_answering(spec, test) for test in task.tests),
    )


def _evaluations(spec: RunSpec, steps: int, per_epoch: int, instruction: bool) -> int:
    before = 1 if instruction else 0  # responses are scored before the first step too
    every = spec.evaluation.every
    if every == "end":
        return before + 1
    return before + (steps // (spec.evaluation.steps or steps) if every == "steps" else math.ceil(steps / per_epoch))


def _answering(spec: RunSpec, test: str) -> Answering:
    """The batches of `lora_xs.evaluation.generation`: as many rows as `generation_tokens` hold to the limit's end."""
    asked, evaluation = questions_of(spec, test), spec.evaluation
    limit, beams = evaluation.max_new_tokens.get(test, 0), evaluation.beams or 1
    generates = evaluation.reading != "likelihood" or asked.family != "choice"
    room = (asked.prompt_tokens + limit) * beams
    width = max(1, min(asked.rows, evaluation.generation_tokens // max(room, 1)))
    batches = math.ceil(asked.rows / width)
    length = min(limit, round(LATE * asked.answer_tokens))
    by_likelihood = evaluation.reading in ("likelihood", "both") and asked.family == "choice"
    return Answering(
        name=test,
        questions=asked.rows,
        prefill=float(asked.rows * asked.prompt_tokens) if generates else 0.0,
        steps=batches * length if generates else 0,
        width=width * beams,
        cached=float(width * beams * (asked.prompt_tokens + length)) if generates else 0.0,
        answer_tokens=float(asked.rows * asked.answer_tokens) if generates else 0.0,
        scored=OPTIONS * asked.rows * (asked.prompt_tokens + asked.answer_tokens) if by_likelihood else 0.0,
    )
