"""Where the cache lies and how its files are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_xs.atomic import replace_file
from lora_xs.cache import cache_root


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LORA_XS_CACHE", raising=False)
    assert cache_root("data") == tmp_path / "home" / ".cache" / "lora_xs" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root("data") == tmp_path / "xdg" / "lora_xs" / "data"
    monkeypatch.setenv("LORA_XS_CACHE", str(tmp_path / "own"))
    assert cache_root("factors") == tmp_path / "own" / "factors"
    monkeypatch.setenv("LORA_XS_CACHE", "off")
    assert cache_root("data") is None


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"
    replace_file(target, lambda path: path.write_text("first"))

    def half(path: Path) -> None:
        path.write_text("hal")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        replace_file(target, half)
    assert target.read_text() == "first" and [path.name for path in target.parent.iterdir()] == ["file"]
