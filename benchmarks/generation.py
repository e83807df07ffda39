"""What batches save, and that they change nothing: completions and likelihoods of a real model on real questions.

    python benchmarks/generation.py [--data FOLDER] [--quick] [--rounds N] [--json FILE]
    python benchmarks/generation.py --data FOLDER --only batched dropping beams likelihood --new 64   # half an hour

`--data` is laid out as the README says; without GSM8K there, the prompts are the packaged word problems. One prompt at
a time is too slow to be run often, so there a part of the prompts stands against the same part of a batched run's time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import side_by_side  # isort: skip (before torch)
import torch
from side_by_side import Row, absent, compared
from transformers import GenerationConfig

from lora_xs.data.question_set import QuestionSet
from lora_xs.data.questions import TESTS
from lora_xs.data.sources import Request
from lora_xs.errors import UserError
from lora_xs.evaluation.generation import Completion, Decoding, HfEngine
from lora_xs.evaluation.generation.decoding import plan_batches
from lora_xs.evaluation.likelihood import choice_log_likelihoods
from lora_xs.models import load_decoder, locate
from lora_xs.spec.bind import bind
from lora_xs.spec.compose import compose_config
from lora_xs.spec.sections import ModelSpec


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def alternate(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int
) -> tuple[list[float], list[float], Any, Any]:
    """Seconds of both from alternating runs, and what either gave."""
    one, other, results = [], [], (None, None)
    for _ in range(rounds):
        (seconds, mine), (others_seconds, others) = timed(ours), timed(theirs)
        one.append(seconds)
        other.append(others_seconds)
        results = mine, others
    return one, other, *results


def equal(ours: Sequence[Any], theirs: Sequence[Any]) -> str:
    """How many of two lists' entries are the same."""
    return f"{sum(one == other for one, other in zip(ours, theirs, strict=True))} of {len(ours)} the same"


class Bench:
    """The questions, over one model."""

    def __init__(self, model: Any, tokenizer: Any, options: argparse.Namespace) -> None:
        self.model, self.tokenizer, self.options = model.eval(), tokenizer, options

    def test(self, name: str, rows: int) -> QuestionSet:
        """`rows` of a test's questions."""
        root = Path(self.options.data) if self.options.data else None
        return TESTS[name](Request(name, "auto", root, None, None)).limited(rows)

    def batched(self) -> Iterator[Row]:
        """Greedy decoding against one prompt at a time."""
        kind = "GSM8K prompts"
        try:
            test = self.test("gsm8k", self.options.prompts)
        except UserError:
            kind, test = "word problems", self.test("word_problems", self.options.prompts)
        prompts = [question.prompt for question in test.questions]
        decoding = Decoding(self.options.new, 1, test.stop)
        engine = HfEngine(self.model, self.tokenizer)
        batched: list[float] = []
        single: list[float] = []
        ours: list[Completion] = []
        theirs: list[Completion] = []
        same: list[Completion] = []
        parts = min(self.options.rounds, len(prompts))
        for part in range(parts):
            seconds, ours = timed(lambda: engine.complete(prompts, decoding))
            batched.append(seconds)
            mine = range(part, len(prompts), 8 * parts)  # an eighth of them in all rounds together

            def one_at_a_time(mine: range = mine) -> list[Completion]:
                return [engine.complete([prompts[place]], decoding)[0] for place in mine]

            seconds, found = timed(one_at_a_time)
            single.append(seconds * len(prompts) / len(mine))
            theirs += found
            same += [ours[place] for place in mine]
        tokens = sum(completion.tokens for completion in ours)
        speeds = " against ".join(f"{tokens / statistics.mean(side):.0f}" for side in (batched, single))
        yield compared(
            f"generation: {len(prompts)} {kind}, ≤ {self.options.new} new tokens, against one prompt at a time",
            batched,
            single,
            0.35,
            ("batched", "one at a time"),
            f"{equal(same, theirs)}; {tokens} tokens, {speeds} a second",
        )

    def dropping(self) -> Iterator[Row]:
        """Rows that have ended are dropped, against carried along to the batch's end."""
        test = self.test("gsm8k", self.options.some)
        prompts = [question.prompt for question in test.questions]
        decoding = Decoding(4 * self.options.new, 1, test.stop)
        dropping, keeping = HfEngine(self.model, self.tokenizer), HfEngine(self.model, self.tokenizer, drop_at=1.0)
        one, other, ours, theirs = alternate(
            lambda: dropping.complete(prompts, decoding),
            lambda: keeping.complete(prompts, decoding),
            self.options.rounds,
        )
        lengths = sorted(completion.tokens for completion in ours)
        quartiles = ", ".join(str(lengths[place * (len(lengths) - 1) // 4]) for place in range(5))
        question = f"generation: {len(prompts)} GSM8K prompts, ≤ {4 * self.options.new} new tokens, ended rows dropped"
        note = f"{equal(ours, theirs)}; quartiles of new tokens {quartiles}"
        yield compared(question, one, other, None, ("dropped", "carried along"), note)

    def beams(self) -> Iterator[Row]:
        """Four beams, the prompt computed once, against transformers' `generate` alone."""
        test = self.test("arc_challenge", self.options.some)
        prompts = [question.prompt for question in test.questions]
        decoding = Decoding(32, 4)
        engine = HfEngine(self.model, self.tokenizer)
        one, other, ours, theirs = alternate(
            lambda: [completion.text for completion in engine.complete(prompts, decoding)],
            lambda: self.plain_beams(prompts, engine.ends, decoding),
            self.options.rounds,
        )
        question = f"generation: {len(prompts)} ARC-c prompts, 4 beams, 32 tokens, against `generate`"
        yield compared(question, one, other, None, ("ours", "generate"), equal(ours, theirs))

    @torch.inference_mode()
    def plain_beams(self, prompts: list[str], ends: list[int], decoding: Decoding) -> list[str]:
        """The same batches through `generate` with nothing of ours."""
        lengths = [len(row) for row in self.tokenizer(prompts)["input_ids"]]
        texts = [""] * len(prompts)
        config = GenerationConfig(
            num_beams=4, do_sample=False, max_new_tokens=32, eos_token_id=ends, pad_token_id=self.tokenizer.pad_token_id
        )
        for batch in plan_batches(lengths, decoding, 16384):
            asked = [prompts[index] for index in batch]
            inputs = self.tokenizer(asked, return_tensors="pt", padding=True, padding_side="left")
            new = self.model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :]
            for index, text in zip(batch, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                texts[index] = text
        return texts

    def likelihood(self) -> Iterator[Row]:
        """Choices' likelihoods, what they share computed once, against a row of a batch for every choice."""
        test = self.test("arc_challenge", self.options.some)
        one, other, ours, theirs = alternate(
            lambda: choice_log_likelihoods(self.model, self.tokenizer, test),
            lambda: self.whole_rows(test),
            self.options.rounds,
        )
        mine = [value for scores in ours for value in scores.log_likelihoods]
        largest = max(abs(one - other) for one, other in zip(mine, theirs, strict=True))
        question = f"likelihoods of {self.options.some} ARC-c questions' choices, against whole rows"
        note = f"differ by at most {largest:.1e} of about {abs(statistics.median(mine)):.0f}"
        yield compared(question, one, other, None, ("ours", "whole rows"), note)

    @torch.inference_mode()
    def whole_rows(self, test: QuestionSet) -> list[float]:
        """Sums of log-probabilities from padded batches of prompt and continuation; logits where needed only."""
        asked = [(question.prompt, text) for question in test.questions for text in question.continuations]
        rows = [self.tokenizer(prompt + text)["input_ids"] for prompt, text in asked]
        starts = [len(self.tokenizer(prompt)["input_ids"]) for prompt, _ in asked]
        sums = [0.0] * len(rows)
        for batch in plan_batches([len(row) for row in rows], Decoding(1), 16384):
            inputs = self.tokenizer.pad({"input_ids": [rows[index] for index in batch]}, return_tensors="pt")
            hidden = self.model.get_decoder()(**inputs, use_cache=False).last_hidden_state  # [rows, tokens, width]
            for place, index in enumerate(batch):
                start, end = starts[index], len(rows[index])
                logits = self.model.lm_head(hidden[place, start - 1 : end - 1]).float()
                scored = torch.tensor(rows[index][start:])[:, None]
                sums[index] = float(logits.log_softmax(-1).gather(1, scored).sum())
        return sums


QUESTIONS = ("batched", "dropping", "beams", "likelihood")


def main(words: Sequence[str] | None = None) -> int:
    """Measure what the arguments name and print the table."""
    parser = side_by_side.arguments(__doc__, rounds=2)
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=["batched"], help="which questions")
    shared = side_by_side.REPOSITORY.parent / "shared" / "data"
    found = os.environ.get("LORA_XS_DATA") or (str(shared) if shared.is_dir() else None)
    parser.add_argument("--data", default=found, help="the folder with math/ and commonsense/ (default: LORA_XS_DATA)")
    parser.add_argument("--model", default="smollm2_135m", help="a decoder of configs/model")
    parser.add_argument("--prompts", type=int, default=64, help="of `batched`")
    parser.add_argument("--some", type=int, default=12, help="prompts of the other questions")
    parser.add_argument(
        "--new", type=int, default=40, help="new tokens of `batched`; `dropping` has four times as many"
    )
    options = side_by_side.parsed(parser, words)
    if options.quick:
        options.prompts, options.some, options.new = 8, 2, 8
    sheet = side_by_side.Sheet("Generation")
    try:
        spec = bind(ModelSpec, compose_config([f"model={options.model}"])["model"], "model")
        bench = Bench(*load_decoder(spec, locate(spec)), options)
    except UserError as mistake:
        sheet.add(absent("generation, 64 real prompts, SmolLM2", str(mistake), 0.35))
        options.only = []
    for name in options.only:
        try:
            for row in getattr(bench, name)():
                sheet.add(row)
        except UserError as mistake:
            sheet.add(absent(f"generation, {name}", str(mistake)))
    sheet.finish(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
