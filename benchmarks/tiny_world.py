"""What tests and benchmarks of many runs train on: a random two-layer BERT, learnable rows of CoLA and STS-B."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = [
    *("the", "a", "cat", "dog", "bird", "tree", "house", "sees", "likes", "eats"),
    *("was", "not", "very", "good", "bad", "old", "new", "river", "stone", "walks"),
]
ROWS = {"train": 96, "validation": 40}


def build(folder: Path) -> list[str]:
    """Write model and rows below `folder`; the overrides of a run of about a second on them."""
    build_model(folder / "model")
    build_rows(folder / "data")
    return [
        "task=glue/cola",
        "model=minilm",
        f"model.path={folder / 'model'}",
        f"data.root={folder / 'data'}",
        "rank=4",
        "trainer.batch_size=16",
        "trainer.learning_rate=1e-2",
        "trainer.head_learning_rate=1e-2",
    ]


def build_model(folder: Path) -> None:
    """Write a random two-layer BERT (hidden 32) and a word-level tokenizer to the new `folder`."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertForSequenceClassification(config).save_pretrained(folder)


def build_rows(root: Path) -> None:
    """Write CoLA and STS-B of 96 and 40 learnable rows below `root`."""
    chance = random.Random(0)
    for split, count in ROWS.items():
        cola, stsb = [], []
        for idx in range(count):
            words, other = chance.choices(WORDS, k=chance.randint(3, 14)), chance.choices(WORDS, k=5)
            cola.append({"sentence": " ".join(words), "label": int("good" in words or "cat" in words), "idx": idx})
            likeness = len(set(words) & set(other))
            stsb.append(
                {"sentence1": " ".join(words), "sentence2": " ".join(other), "label": float(likeness), "idx": idx}
            )
        for name, rows in (("cola", cola), ("stsb", stsb)):
            path = root / "glue" / name / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
