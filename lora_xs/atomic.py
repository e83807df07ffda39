"""Files and folders that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
_guard: ContextVar[Callable[[], None]] = ContextVar("_guard", default=lambda: None)


@contextlib.contextmanager
def guarded(check: Callable[[], None]) -> Iterator[None]:
    """While the block lasts, `check` comes before anything is put in place; what it raises leaves all as it was."""
    former = _guard.set(check)
    try:
        yield
    finally:
        _guard.reset(former)


def replace_file(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `target`, then put it in place at once; makes the folder.

    A reader sees the old file or the whole new one, also after a power cut; of concurrent writers the last wins.
    Raises OSError where the folder cannot be written, and whatever `write` raises, leaving nothing behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # not tempfile: its files are readable by their owner alone, and a cache or a results folder may be shared
    partial = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write(partial)
        _sync(partial)
        _guard.get()()
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def out_of_space(error: BaseException | None) -> bool:
    """Whether a full disk or quota is what `error` is about, or was raised from."""
    while error is not None:
        if getattr(error, "errno", None) in FULL or any(f"os error {number})" in str(error) for number in FULL):
            return True  # safetensors writes in Rust, and its errors say so in words alone
        error = error.__cause__ or error.__context__
    return False


def write_bytes(path: Path, content: bytes) -> None:
    """`replace_file` with `content`."""
    replace_file(path, lambda partial: partial.write_bytes(content))


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """`write_bytes` for JSON: sorted keys, two spaces, a final newline; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` when the block ends well, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    os.chmod(temporary, 0o755)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        _guard.get()()
        _swap_in(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap_in(new: Path, place: Path) -> None:
    if not place.exists():
        os.rename(new, place)
        return
    retired = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.old."))
    os.rename(place, retired / "old")  # a kill between these two lines leaves no folder, never half of one
    os.rename(new, place)
    shutil.rmtree(retired, ignore_errors=True)


def _sync(file: Path) -> None:
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
