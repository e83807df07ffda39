"""The code a queued job will run: a copy made at submission, so that later edits do not reach it.

The copy is a shallow clone of the checkout's HEAD, a repository of its own: what it runs is told by `git -C <copy>
status`, and records made from it name the right commit.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_xs.atomic import new_folder
from lora_xs.errors import UserError

CODE = ("lora_xs", "configs", "experiments", "scripts", "train.py")  # what a run or a sweep reads of a checkout
CHANGES = "uncommitted.diff"  # inside the copy's .git, so that it does not count as a difference itself
WITHOUT_RUNS = "/*\n!/results/runs/\n"


@dataclass(frozen=True)
class Snapshot:
    """Code for jobs. path: put it on PYTHONPATH. commit: its HEAD, None outside git. changed: files that differ."""

    path: Path
    commit: str | None
    changed: tuple[str, ...] = ()


def take_snapshot(source: Path, folder: Path, how: Literal["commit", "diff", "none"]) -> Snapshot:
    """Copy the checkout at `source` below `folder`, once for each content; a copy that is there is used again.

    how: `commit` copies HEAD and refuses a checkout whose code differs from it; `diff` copies HEAD and applies the
    difference, untracked files included, which stays in it as `.git/uncommitted.diff`; `none` copies nothing.
    Raises UserError for a checkout that is none, or differs under `commit`.
    """
    commit = _git(source, "rev-parse", "--verify", "HEAD^{commit}", check=False).strip() or None
    if how == "none":
        return Snapshot(source, commit, _changed(source) if commit else ())
    if commit is None:
        raise UserError(
            f"{source} is no git checkout with a commit, so jobs cannot be given their own copy of the code; "
            "use launcher.slurm.snapshot=none and leave the code alone while jobs are queued"
        )
    changed = _changed(source)
    if changed and how == "commit":
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{changed[0]}{more} of {source} differ from HEAD; commit, or take the differences along with "
            "launcher.slurm.snapshot=diff"
        )
    changes = _changes(source, changed) if changed else ""
    digest = hashlib.sha256(changes.encode()).hexdigest()[:8]
    copy = folder / (f"code-{commit[:12]}" + (f"-{digest}" if changes else ""))
    if not copy.is_dir():
        with new_folder(copy) as temporary:
            _git(temporary, "init", "--quiet")
            _git(temporary, "fetch", "--quiet", "--depth=1", source.resolve().as_uri(), commit)
            _git(temporary, "config", "core.sparseCheckout", "true")
            (temporary / ".git" / "info" / "sparse-checkout").write_text(WITHOUT_RUNS)
            _git(temporary, "checkout", "--quiet", "--detach", commit)
            if changes:
                (temporary / ".git" / CHANGES).write_text(changes, encoding="utf-8")
                # --index: a file git did not know makes the copy differ too, for the records' dirty flag
                _git(temporary, "apply", "--index", "--whitespace=nowarn", f".git/{CHANGES}")
    return Snapshot(copy, commit, changed)


def _changed(source: Path) -> tuple[str, ...]:
    """Files of the code that differ from HEAD, untracked ones included."""
    text = _git(source, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--", *CODE)
    return tuple(entry[3:] for entry in text.split("\0") if entry)


def _changes(source: Path, changed: Sequence[str]) -> str:
    """The difference between HEAD and the code as it lies, made with an index of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        _git(source, "read-tree", "HEAD", more=index)
        _git(source, "add", "--all", "--", *changed, more=index)
        return _git(source, "diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "HEAD", more=index)


def _git(folder: Path, *words: str, more: Mapping[str, str] | None = None, check: bool = True) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **(more or {})},
        )
    except FileNotFoundError:
        if check:
            raise UserError("git is not installed; use launcher.slurm.snapshot=none") from None
        return ""
    except subprocess.TimeoutExpired:
        raise UserError(f"git {words[0]} did not answer within 300 s in {folder}; try again") from None
    if done.returncode and check:
        raise UserError(f"git {words[0]} failed in {folder}: {' '.join(done.stderr.split())[:300]}; mend the checkout")
    return done.stdout if not done.returncode else ""
