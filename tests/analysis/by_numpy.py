"""The same analyses once more, written independently: weights from the files, numpy's SVD, a model built anew."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

Change = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(W, W') -> the weight to score, all `[out, in]`, fp64."""


def loss_with(folder: Path, base: Path, data: Path, pattern: str, change: Change) -> float:
    """Mean cross-entropy of CoLA's validation rows with the weights whose names match `pattern` changed."""
    before = load_file(base / "model.safetensors")
    after = load_file(folder / "adapter" / "best" / "model.safetensors")
    head = load_file(folder / "adapter" / "best" / "head.safetensors")
    changed = [name for name in after if re.fullmatch(pattern, name)]
    assert len(changed) == 2, changed  # a matrix a layer
    for name in changed:
        weight = change(before[name].double().numpy(), after[name].double().numpy())
        after[name] = torch.from_numpy(weight).float()
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2).eval()
    model.load_state_dict({**after, **head}, strict=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [json.loads(line) for line in (data / "glue" / "cola" / "validation.jsonl").read_text().splitlines()]
    inputs = tokenizer([row["sentence"] for row in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    return torch.nn.functional.cross_entropy(logits, torch.tensor([row["label"] for row in rows])).item()


def part(count: int, subset: str, k: int) -> np.ndarray:
    """Indices of `count` of k descending triplets."""
    first = {"top": 0, "middle": (k - count) // 2, "bottom": k - count}[subset]
    return np.arange(first, first + count)


def kept(count: int, subset: str) -> Change:
    """A part of the fine-tuned weight's triplets."""

    def change(_: np.ndarray, after: np.ndarray) -> np.ndarray:
        u, s, vt = np.linalg.svd(after, full_matrices=False)
        return sum((s[i] * np.outer(u[:, i], vt[i]) for i in part(count, subset, len(s))), np.zeros_like(after))

    return change


def projected(count: int, subset: str) -> Change:
    """W and the change's components along pairs of W's singular vectors."""

    def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        u, s, vt = np.linalg.svd(before, full_matrices=False)
        chosen, found = part(count, subset, len(s)), before.copy()
        for i in chosen:
            for j in chosen:
                found += (u[:, i] @ (after - before) @ vt[j]) * np.outer(u[:, i], vt[j])
        return found

    return change
