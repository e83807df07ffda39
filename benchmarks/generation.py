"""What batches save, and that they change nothing: completions and likelihoods of a real model on real questions.

    python benchmarks/generation.py --data ../shared/data                       # all of it; half an hour on one thread
    python benchmarks/generation.py --data ../shared/data --only batched --prompts 64

`--data` is laid out as the README says. Prints a Markdown table. Runs of the two sides alternate: a ratio is the median
over pairs of runs, with the smallest and largest beside it; one prompt at a time is too slow to be run often, so there
a part of it stands against the same part of a batched run's time.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
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

Row = tuple[str, str, str, str, str]
HEAD: Row = ("question", "ours, s", "the other, s", "ratio (least–most)", "do they agree?")


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def alternate(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[tuple[str, str, str], Any, Any]:
    """Median seconds of both, the ratio with its spread, and what either gave, from alternating runs."""
    pairs, results = [], (None, None)
    for _ in range(rounds):
        (one, mine), (other, others) = timed(ours), timed(theirs)
        pairs.append((one, other))
        results = mine, others
    ratios = sorted(one / other for one, other in pairs)
    seconds = [f"{statistics.median(side):.1f}" for side in zip(*pairs, strict=True)]
    return (seconds[0], seconds[1], f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})"), *results


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
        test = self.test("gsm8k", self.options.prompts)
        prompts = [question.prompt for question in test.questions]
        decoding = Decoding(self.options.new, 1, test.stop)
        engine = HfEngine(self.model, self.tokenizer)
        batched: list[float] = []
        single: list[float] = []
        ours: list[Completion] = []
        theirs: list[Completion] = []
        parts = min(self.options.rounds, len(prompts))
        for part in range(parts):
            seconds, ours = timed(lambda: engine.complete(prompts, decoding))
            batched.append(seconds)
            mine = prompts[part * len(prompts) // parts : (part + 1) * len(prompts) // parts]

            def one_at_a_time(mine: list[str] = mine) -> list[Completion]:
                return [engine.complete([prompt], decoding)[0] for prompt in mine]

            seconds, found = timed(one_at_a_time)
            single.append(seconds * len(prompts) / len(mine))
            theirs += found
        ratios = sorted(one / other for one, other in zip(batched, single, strict=True))
        tokens = sum(completion.tokens for completion in ours)
        speeds = [f"{tokens / statistics.mean(side):.0f}" for side in (batched, single)]
        name = f"{len(prompts)} GSM8K prompts, ≤ {self.options.new} new tokens, against one prompt at a time"
        yield (
            f"{name} ({tokens} in all; {speeds[0]} against {speeds[1]} a second)",
            f"{statistics.median(batched):.1f}",
            f"{statistics.median(single):.1f}",
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})",
            equal(ours, theirs),
        )

    def dropping(self) -> Iterator[Row]:
        """Rows that have ended are dropped, against carried along to the batch's end."""
        test = self.test("gsm8k", self.options.some)
        prompts = [question.prompt for question in test.questions]
        decoding = Decoding(4 * self.options.new, 1, test.stop)
        dropping, keeping = HfEngine(self.model, self.tokenizer), HfEngine(self.model, self.tokenizer, drop_at=1.0)
        timing, ours, theirs = alternate(
            lambda: dropping.complete(prompts, decoding),
            lambda: keeping.complete(prompts, decoding),
            self.options.rounds,
        )
        lengths = sorted(completion.tokens for completion in ours)
        quartiles = ", ".join(str(lengths[place * (len(lengths) - 1) // 4]) for place in range(5))
        name = f"{len(prompts)} GSM8K prompts, ≤ {4 * self.options.new} new tokens (quartiles {quartiles})"
        yield (f"{name}: ended rows dropped or carried along", *timing, equal(ours, theirs))

    def beams(self) -> Iterator[Row]:
        """Four beams, the prompt computed once, against transformers' `generate` alone."""
        test = self.test("arc_challenge", self.options.some)
        prompts = [question.prompt for question in test.questions]
        decoding = Decoding(32, 4)
        engine = HfEngine(self.model, self.tokenizer)
        timing, ours, theirs = alternate(
            lambda: [completion.text for completion in engine.complete(prompts, decoding)],
            lambda: self.plain_beams(prompts, engine.ends, decoding),
            self.options.rounds,
        )
        yield (f"{len(prompts)} ARC-c prompts, 4 beams, 32 tokens, against `generate`", *timing, equal(ours, theirs))

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
        timing, ours, theirs = alternate(
            lambda: choice_log_likelihoods(self.model, self.tokenizer, test),
            lambda: self.whole_rows(test),
            self.options.rounds,
        )
        mine = [value for scores in ours for value in scores.log_likelihoods]
        largest = max(abs(one - other) for one, other in zip(mine, theirs, strict=True))
        name = f"{self.options.some} ARC-c questions' likelihoods, against whole rows"
        yield (name, *timing, f"differ by at most {largest:.1e} of about {abs(statistics.median(mine)):.0f}")

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the arguments name and print the table."""
    parser = argparse.ArgumentParser(description="Speed and agreement of batched generation and likelihoods.")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="some of the questions")
    parser.add_argument("--data", help="the folder with math/ and commonsense/ (default: LORA_XS_DATA)")
    parser.add_argument("--model", default="smollm2_135m", help="a decoder of configs/model")
    parser.add_argument("--prompts", type=int, default=64, help="of `batched`")
    parser.add_argument("--some", type=int, default=16, help="prompts of the other questions")
    parser.add_argument(
        "--new", type=int, default=64, help="new tokens of `batched`; `dropping` has four times as many"
    )
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        spec = bind(ModelSpec, compose_config([f"model={options.model}"])["model"], "model")
        bench = Bench(*load_decoder(spec, locate(spec)), options)
        print(f"model: {options.model}, {spec.dtype}; threads: {options.threads}; torch {torch.__version__}\n")
        print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD), flush=True)
        for name in options.only:
            for row in getattr(bench, name)():
                print("| " + " | ".join(row) + " |", flush=True)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
