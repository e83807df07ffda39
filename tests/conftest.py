"""One thread, no network, a throw-away cache, and a tiny world: a two-layer BERT and CoLA-like rows in local files."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_EVALUATE_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.pop("LORA_XS_DATA", None)

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "bird",
    "tree",
    "house",
    "sees",
    "likes",
    "eats",
    "was",
    "not",
    "very",
    "good",
    "bad",
    "old",
    "new",
    "river",
    "stone",
    "walks",
]


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["LORA_XS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer BERT (hidden 32) and a word-level tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_model")
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
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with CoLA and STS-B of 96 and 40 learnable rows."""
    root = tmp_path_factory.mktemp("data")
    chance = random.Random(0)
    for split, rows in (("train", 96), ("validation", 40)):
        cola, stsb = [], []
        for idx in range(rows):
            words = chance.choices(WORDS, k=chance.randint(3, 14))
            cola.append({"sentence": " ".join(words), "label": int("good" in words or "cat" in words), "idx": idx})
            other = chance.choices(WORDS, k=5)
            shared = 5.0 * len(set(words) & set(other)) / 5
            stsb.append({"sentence1": " ".join(words), "sentence2": " ".join(other), "label": shared, "idx": idx})
        for name, lines in (("cola", cola), ("stsb", stsb)):
            path = root / "glue" / name / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.fixture
def tiny_run(tiny_model: Path, tiny_data: Path, tmp_path: Path):
    """A function (overrides) -> RunSpec of a run of seconds in `tmp_path`."""
    from lora_xs.spec import RunSpec
    from lora_xs.spec.compose import compose_config

    def spec(*overrides: str) -> RunSpec:
        config = compose_config(
            [
                "task=glue/cola",
                "model=minilm",
                f"model.path={tiny_model}",
                f"data.root={tiny_data}",
                f"results={tmp_path}",
                "rank=4",
                "trainer.epochs=2",
                "trainer.batch_size=16",
                "trainer.learning_rate=1e-2",
                "trainer.head_learning_rate=1e-2",
                *overrides,
            ]
        )
        config.pop("force")
        return RunSpec.from_config(config)

    return spec
