"""A tiny BERT fine-tuned fully, once; each test gets a copy of the run's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_xs.records import Record, read_record
from lora_xs.runner import run
from lora_xs.spec.compose import compose_spec


@pytest.fixture(scope="session")
def trained(tiny_model: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function (method) -> the folder of a finished run of it, trained at the first call; not to be changed."""
    results = tmp_path_factory.mktemp("trained")
    folders: dict[str, Path] = {}

    def folder(method: str) -> Path:
        if method not in folders:
            spec = compose_spec([
                "task=glue/cola", "model=minilm", f"model.path={tiny_model}", f"data.root={tiny_data}",
                f"results={results}", f"method={method}", "rank=4", "trainer.epochs=6", "trainer.batch_size=16",
                "trainer.learning_rate=5e-3", "trainer.head_learning_rate=1e-2",
            ])  # fmt: skip
            assert run(spec).status == "finished"
            folders[method] = spec.folder
        return folders[method]

    return folder


@pytest.fixture
def tuned_folder(trained: Callable[[str], Path], tmp_path: Path) -> Path:
    """A full fine-tuning run's folder of this test's own."""
    source = trained("full_ft")
    return shutil.copytree(source, tmp_path / source.name)


@pytest.fixture
def tuned_record(tuned_folder: Path) -> Record:
    """Its record."""
    record = read_record(tuned_folder)
    assert record is not None
    return record
