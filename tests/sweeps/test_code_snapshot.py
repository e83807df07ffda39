"""The copy of the code that jobs run: HEAD exactly, or HEAD with a stated difference, and deaf to later edits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lora_xs.errors import UserError
from lora_xs.sweeps.snapshot import take_snapshot


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkout with code, a run's record and a note, all committed."""
    folder = tmp_path / "source"
    for name, text in {
        "lora_xs/one.py": "value = 1\n",
        "lora_xs/two.py": "value = 2\n",
        "results/runs/a/record.json": "{}\n",
        "NOTES": "notes\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


def test_a_copy_is_heads_code_and_deaf_to_later_edits(source: Path, tmp_path: Path) -> None:
    head = git(source, "rev-parse", "HEAD").strip()
    copy = take_snapshot(source, tmp_path / "sweep", "commit")
    (source / "lora_xs" / "one.py").write_text("value = 0\n")
    assert (copy.commit, copy.changed) == (head, ())
    assert (copy.path / "lora_xs" / "one.py").read_text() == "value = 1\n"
    assert not (copy.path / "results" / "runs").exists(), "records are no code"
    assert git(copy.path, "rev-parse", "HEAD").strip() == head
    assert git(copy.path, "status", "--porcelain") == ""


def test_the_same_commit_is_copied_once(source: Path, tmp_path: Path) -> None:
    one = take_snapshot(source, tmp_path / "sweep", "commit")
    (source / "NOTES").write_text("not code, so no difference\n")
    assert take_snapshot(source, tmp_path / "sweep", "commit") == one
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == [one.path.name]


def test_code_that_differs_from_head_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    (source / "lora_xs" / "three.py").write_text("value = 3\n")
    with pytest.raises(UserError, match=r"lora_xs/three\.py .*snapshot=diff"):
        take_snapshot(source, tmp_path / "sweep", "commit")


def test_differences_are_taken_along_and_stated(source: Path, tmp_path: Path) -> None:
    (source / "lora_xs" / "one.py").write_text("value = 10\n")
    (source / "lora_xs" / "two.py").unlink()
    (source / "lora_xs" / "three.py").write_text("value = 3\n")
    staged = git(source, "status", "--porcelain")
    copy = take_snapshot(source, tmp_path / "sweep", "diff")
    assert set(copy.changed) == {"lora_xs/one.py", "lora_xs/two.py", "lora_xs/three.py"}
    assert {path.name: path.read_text() for path in (copy.path / "lora_xs").iterdir()} == {
        "one.py": "value = 10\n",
        "three.py": "value = 3\n",
    }
    assert "+value = 10" in (copy.path / ".git" / "uncommitted.diff").read_text()
    assert git(copy.path, "status", "--porcelain", "--untracked-files=no"), "records made here must say dirty"
    assert git(source, "status", "--porcelain") == staged, "the checkout and its index are left alone"
    (source / "lora_xs" / "one.py").write_text("value = 11\n")
    assert take_snapshot(source, tmp_path / "sweep", "diff").path != copy.path


def test_outside_git_only_the_code_as_it_lies_can_be_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="snapshot=none"):
        take_snapshot(tmp_path, tmp_path / "sweep", "commit")
    assert take_snapshot(tmp_path, tmp_path / "sweep", "none").path == tmp_path
    assert not (tmp_path / "sweep").exists()
