"""Overrides of runs that are the same however they are split: tiny, and without dropout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_decoders import save_decoder


@pytest.fixture(scope="session")
def still_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without dropout, whose masks follow the split of a batch."""
    folder = tmp_path_factory.mktemp("still") / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    )
    return folder


@pytest.fixture(scope="session")
def still_overrides(still_model: Path, tiny_data: Path) -> list[str]:
    # 33 rows in steps of 16: the last of an epoch has one row, so one of two processes has none; 37 rows are scored
    return ["task=glue/cola", "model=minilm", f"model.path={still_model}", f"data.root={tiny_data}", "rank=4",
            "trainer.epochs=2", "trainer.batch_size=16", "trainer.learning_rate=1e-2",
            "trainer.head_learning_rate=1e-2", "task.train_rows=33", "task.validation_rows=37",
            "trainer.log_steps=2"]  # fmt: skip


@pytest.fixture(scope="session")
def decoder_overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = save_decoder(tmp_path_factory.mktemp("decoder"), "llama", "smollm")
    return ["task=word_problems", f"model.path={folder}", "model.package=null", "model.architecture={}", "rank.r=4",
            "task.train_rows=13", "task.validation_rows=5", "task.test_rows=3", "trainer.batch_size=4",
            "trainer.epochs=2", "trainer.learning_rate=1e-2", "trainer.log_steps=2",
            "evaluation.max_new_tokens=3"]  # fmt: skip
