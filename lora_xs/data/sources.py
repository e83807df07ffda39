"""Which of the three sources a task's rows come from, and what to say when none has them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_xs.errors import UserError

Source = Literal["hub", "local", "package"]


@dataclass(frozen=True)
class Request:
    """What rows are asked for. `cache` is None where nothing may be kept; `prompt` names the template that instruction
    rows and questions are rendered in, None for the family's own."""

    task: str
    source: Literal["auto", "hub", "local", "package"]
    root: Path | None
    revision: str | None
    cache: Path | None
    prompt: str | None = None


def resolve_source(request: Request, offers: tuple[Source, ...], local_holds: str | None = None) -> Source:
    """The source a request is served from, out of those the task `offers` (its own default last).

    1. A source named outright is taken, whatever else is set: `hub` wins over a given folder.
    2. `auto` with a folder (`data.root`, else `LORA_XS_DATA`) means `local`. Where `local_holds` is given, only if the
       folder has something of that name: one folder of GLUE files must not hide the reviews, which come by package.
    3. Otherwise the task's default.

    Raises UserError for a source the task does not offer and for `local` without a folder.
    """
    if request.source != "auto":
        if request.source not in offers:
            raise UserError(
                f"data.source={request.source}: task {request.task} has no such source;"
                f" allowed: auto, {', '.join(offers)}"
            )
        if request.source == "local":
            local_root(request)
        return request.source
    if (request.root or os.environ.get("LORA_XS_DATA")) and (
        local_holds is None or (local_root(request) / local_holds).exists()
    ):
        return "local"
    return offers[-1]


def local_root(request: Request) -> Path:
    """The local folder: `data.root`, else `LORA_XS_DATA`. Raises UserError where neither names an existing folder."""
    setting = "data.root" if request.root else "LORA_XS_DATA"
    chosen = request.root or os.environ.get("LORA_XS_DATA")
    if not chosen:
        raise UserError("data.source=local: no folder is named; set data.root=<folder> or LORA_XS_DATA")
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise UserError(f"{setting}={chosen}: no such folder")
    return folder


def sha256(content: bytes) -> str:
    """64 hex digits of a file's content."""
    return hashlib.sha256(content).hexdigest()
