"""One thread, no network, a throw-away cache, and a tiny world: a two-layer BERT and CoLA-like rows in local files."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_EVALUATE_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.pop("LORA_XS_DATA", None)

import pytest
from tiny_world import build_model, build_rows

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["LORA_XS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer BERT (hidden 32) and a word-level tokenizer."""
    folder = tmp_path_factory.mktemp("tiny_model") / "model"
    build_model(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with CoLA and STS-B of 96 and 40 learnable rows."""
    root = tmp_path_factory.mktemp("data")
    build_rows(root)
    return root


@pytest.fixture
def tiny_run(tiny_model: Path, tiny_data: Path, tmp_path: Path):
    """A function (overrides) -> RunSpec of a run of seconds in `tmp_path`."""
    from lora_xs.spec import RunSpec
    from lora_xs.spec.compose import compose_spec

    def spec(*overrides: str) -> RunSpec:
        return compose_spec(
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

    return spec
