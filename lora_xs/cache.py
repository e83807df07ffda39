"""Where the project keeps what it can make again: factors, fetched rows, tokens."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root(room: str) -> Path | None:
    """The folder of one room of the cache (`"data"`, `"factors"`, …), or None where the cache is off.

    `LORA_XS_CACHE` names the folder (`off`: no cache); without it `$XDG_CACHE_HOME/lora_xs`, else `~/.cache/lora_xs`.
    The folder is not made here.
    """
    chosen = os.environ.get("LORA_XS_CACHE", "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen).expanduser() / room
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "lora_xs" / room
