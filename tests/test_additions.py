"""CONTRIBUTING.md's three additions, applied to a copy of the tree: each is short, fits, and runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MOST_LINES = 30
BLOCKS = dict(zip(
    ("method", "task", "model"),
    re.findall(r"```diff\n(.*?)```", (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL),
    strict=True,
))  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, its configs and entry point, with all three additions."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("lora_xs", "configs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "train.py", folder)
    for block in BLOCKS.values():
        apply(block, folder)
    return folder


def apply(block: str, folder: Path) -> None:
    """Lay a block on the files it names: what stands there (` `, `-`) must stand there once."""
    for part in re.split(r"^--- ", block, flags=re.MULTILINE)[1:]:
        name, *lines = part.splitlines()
        path = folder / name
        old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
        new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
        if not path.exists():
            assert not old
            path.write_text(new + "\n", encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name}: {old!r} stands there {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")


def train(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "train.py", *words]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_an_addition_is_short(block: str) -> None:
    added = [line for line in block.splitlines() if line.startswith("+")]
    assert 0 < len(added) < MOST_LINES


def test_a_new_method_and_a_new_task_train(tree: Path, tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"sentence1": f"the {a} sees", "sentence2": f"a {b} eats", "label": int(a == b)}
            for a in ("cat", "dog", "bird") for b in ("cat", "dog", "bird")]  # fmt: skip
    folder = tmp_path / "glue" / "wnli"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = train(
        tree, "task=glue/wnli", "model=minilm", f"model.path={tiny_model}", "method=ia3", "trainer.epochs=1",
        f"data.root={tmp_path}", f"results={tmp_path / 'runs'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((Path(done.stdout.splitlines()[-1]) / "record.json").read_text(encoding="utf-8"))
    assert record["train"]["parameters"]["adapter"] > 0
    assert "accuracy" in record["train"]["best"]


def test_a_new_model_is_known_by_its_file_alone(tree: Path) -> None:
    done = train(tree, "task=glue/mrpc", "model=distilroberta", "rank=16", "--spec")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["hub"] == "distilbert/distilroberta-base"
