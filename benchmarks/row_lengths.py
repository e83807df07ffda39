"""Tokens a row of every task and test, measured: what lora_xs/sweeps/rows.csv and questions.csv were made with.

    python benchmarks/row_lengths.py --data FOLDER        # laid out as the README says; prints both tables

MiniLM's tokenizer reads labelled texts, SmolLM2's prompts and responses. Rows of a training file that FOLDER does not
hold are measured on what it does hold (`STANDS_FOR`), and their number is the published one.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.data import load_rows, load_test
from lora_xs.data.glue import GLUE
from lora_xs.data.prompts import prompt_named
from lora_xs.models import locate
from lora_xs.models.tokenizer import load_tokenizer
from lora_xs.spec.bind import bind
from lora_xs.spec.compose import compose_config
from lora_xs.spec.sections import ModelSpec

QUANTILES = (0, 10, 25, 50, 75, 90, 95, 99, 100)
ROWS = {  # training and validation rows as published, where FOLDER holds others
    "glue/mnli": (392_702, 9_815),
    "glue/qnli": (104_743, 5_463),
    "math/metamathqa": (395_000, 0),
    "commonsense/all": (170_420, 0),
}
COMMONSENSE170K = {  # LLM-Adapters, Table 1: rows of each part; they add up to 170,420
    "boolq": 9_427, "piqa": 16_113, "social_i_qa": 33_410, "hellaswag": 39_905, "winogrande": 63_238,
    "ARC-Easy": 2_251, "ARC-Challenge": 1_119, "openbookqa": 4_957,
}  # fmt: skip
STANDS_FOR = {
    "glue/mnli": "its matched validation rows",
    "glue/qnli": "its validation rows",
    "math/metamathqa": "GSM8K's training rows in its form and MATH's test solutions, 240 to 155 as its parts' sizes",
    "commonsense/all": "its parts at hand, weighted by their published sizes; PIQA's and part of HellaSwag's test rows",
}
ANSWER = "the correct answer is solution1"


def main() -> int:
    """Print both tables as CSV."""
    parser = argparse.ArgumentParser(description="Measure tokens a row.")
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    short, long = tokenizer("minilm"), tokenizer("smollm2_135m")
    out = csv.writer(sys.stdout)
    out.writerow(["task", "rows", "validation_rows", *(f"p{q}" for q in QUANTILES), "response_share", "measured_on"])
    for name in [f"glue/{task}" for task in GLUE] + ["reviews", "reviews_score"]:
        texts, train, validation = labelled(name, folder)
        lengths = [len(ids) for ids in short(*texts)["input_ids"]]
        out.writerow([name, *ROWS.get(name, (train, validation)), *quantiles(lengths), 0, STANDS_FOR.get(name, "all")])
    for name in ("math/metamathqa", "math/gsm8k_train", "commonsense/all", "commonsense/merged", "word_problems"):
        parts = list(instructions(name, folder))
        total = ROWS.get(name, (sum(len(pairs) for _, pairs in parts), 0))
        prompts, responses, weights = [], [], []
        for weight, pairs in parts:
            prompts += [len(ids) for ids in long([prompt for prompt, _ in pairs])["input_ids"]]
            responses += [len(ids) + 1 for ids in long([response for _, response in pairs])["input_ids"]]
            weights += [weight / len(pairs)] * len(pairs)
        lengths = np.add(prompts, responses)
        share = np.dot(responses, weights) / np.dot(lengths, weights)
        out.writerow([name, *total, *quantiles(lengths, weights), f"{share:.3f}", STANDS_FOR.get(name, "all")])
    print()
    out.writerow(["test", "family", "rows", "prompt_tokens", "answer_tokens", "measured_on"])
    from lora_xs.data.questions import TESTS

    for name in TESTS:
        prompt = "llm_adapters_v1" if name not in ("gsm8k", "math", "math500", "word_problems") else "alpaca_v1"
        source: Any = {"source": "auto"} if name == "word_problems" else {"source": "local", "root": folder}
        test = load_test(name, prompt=prompt, **source)
        prompts = [len(ids) for ids in long([question.prompt for question in test.questions])["input_ids"]]
        answers, how = answer_tokens(name, folder, long)
        out.writerow([name, test.family, len(prompts), round(float(np.mean(prompts))), round(answers), how])
    return 0


def tokenizer(name: str) -> Any:
    """The tokenizer of a packaged model."""
    model = bind(ModelSpec, compose_config([f"model={name}"])["model"], "model")
    if name == "minilm":
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(locate(model).folder)
    return load_tokenizer(model, locate(model))


def quantiles(lengths: Any, weights: Any = None) -> list[int]:
    """Lengths at `QUANTILES` percent of the (weighted) rows."""
    order = np.argsort(lengths)
    ranked = np.asarray(lengths)[order]
    share = np.cumsum(np.ones(len(ranked)) if weights is None else np.asarray(weights)[order])
    places = np.searchsorted(share, np.asarray(QUANTILES) / 100 * share[-1])
    return [int(length) for length in ranked[np.minimum(places, len(ranked) - 1)]]


def labelled(name: str, folder: Path) -> tuple[list[list[str]], int, int]:
    """Texts (one or two lists) and the numbers of training and validation rows."""
    if name in ROWS:
        task = GLUE[name.removeprefix("glue/")]
        lines = (folder / name / f"{task.validation}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return [[row[field] for row in rows] for field in task.fields], len(rows), len(rows)
    source: Any = {"source": "local", "root": folder} if name.startswith("glue/") else {"source": "package"}
    found = load_rows(name, **source)
    columns = [column for column in ("text_a", "text_b") if column in found.train.column_names]
    return [list(found.train[column]) for column in columns], len(found.train), len(found.validation)


def instructions(name: str, folder: Path) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """(how many rows they stand for, prompts and responses) of each part of a training set."""
    if name == "commonsense/all":
        prompt = prompt_named("llm_adapters_v1")
        for part, rows in COMMONSENSE170K.items():
            files = [folder / "commonsense" / part / f"{split}.json" for split in ("train", "test")]
            content = json.loads(next(file for file in files if file.is_file()).read_text(encoding="utf-8"))
            yield rows, [(prompt.for_training(row["instruction"]), row["output"]) for row in content]
    elif name == "math/metamathqa":
        prompt = prompt_named("alpaca_v1")
        lines = (folder / "math" / "math_test.jsonl").read_text(encoding="utf-8").splitlines()
        rows_of_math = [json.loads(line) for line in lines]
        ending = "\nThe answer is: 42"
        yield 155, [(prompt.for_training(row["problem"]), row["solution"] + ending) for row in rows_of_math]
        yield from ((240, pairs) for _, pairs in instructions("math/gsm8k_train", folder))
    else:
        source: Any = {"source": "auto"} if name == "word_problems" else {"source": "local", "root": folder}
        template = {"commonsense/merged": "llm_adapters_v1", "word_problems": "alpaca_even_v1"}.get(name, "alpaca_v1")
        rows = load_rows(name, prompt=template, **source).train
        pairs = list(zip(rows["prompt"], rows["response"], strict=True))
        yield len(pairs), pairs


def answer_tokens(name: str, folder: Path, words: Any) -> tuple[float, str]:
    """Mean tokens of a worked answer, and what it was measured on."""

    def mean(texts: Sequence[str]) -> float:
        return float(np.mean([len(ids) + 1 for ids in words(list(texts))["input_ids"]]))

    if name == "gsm8k":
        return mean([pair[1] for _, pairs in instructions("math/gsm8k_train", folder) for pair in pairs]), "train"
    if name in ("math", "math500"):
        lines = (folder / "math" / "math_test.jsonl").read_text(encoding="utf-8").splitlines()
        return mean([json.loads(line)["solution"] for line in lines]), "its own solutions"
    if name == "word_problems":
        return mean([pair[1] for _, pairs in instructions(name, folder) for pair in pairs]), "train"
    return mean([ANSWER]), "the sentence every answer is trained to be"


if __name__ == "__main__":
    sys.exit(main())
