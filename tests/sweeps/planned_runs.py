"""Planned runs without experiments, folders as runs leave them, and scripts as modules."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from lora_xs.atomic import write_json
from lora_xs.lease import LEASE, _born, _here
from lora_xs.records import Record, write_record
from lora_xs.spec import RunSpec, canonical_json
from lora_xs.spec.compose import compose_spec
from lora_xs.sweeps.state import FolderReader, State

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Planned:
    """As lora_xs.sweeps.grid.PlannedRun."""

    spec: RunSpec
    cell: Mapping[str, str]
    needs: tuple[str, ...] = field(default=())


def planned(results: Path, *overrides: str, needs: tuple[str, ...] = (), **cell: str) -> Planned:
    """A run of RoBERTa-large whose results lie below `results`."""
    return Planned(compose_spec(["task=glue/mrpc", "rank=4", f"results={results}", *overrides]), cell, needs)


def leave(spec: RunSpec, status: str, **blocks: Any) -> Path:
    """A run's folder as an attempt that ended in `status` leaves it."""
    run = {"signature": spec.signature, "spec": json.loads(canonical_json(spec)), "started": "2026-01-01T00:00:00"}
    run["error"] = {"what": "the loss is nan", "step": 7} if status in ("failed", "diverged") else None
    write_json(spec.folder / "spec.json", spec.to_json())
    write_record(spec.folder, Record(status, run, blocks.get("train", {}), blocks.get("environment", {})))
    return spec.folder


def hold(folder: Path, *, host: str | None = None, pid: int | None = None, born: str | None = None) -> Path:
    """Put a lease there: this process's own unless told otherwise."""
    pid = pid or os.getpid()
    folder.mkdir(parents=True, exist_ok=True)
    holder = {**_here(), **({"host": host} if host else {}), "pid": pid, "born": born or _born(pid)}
    (folder / LEASE).write_text(json.dumps(holder))
    return folder / LEASE


def checkpoint(folder: Path, step: int) -> None:
    """A checkpoint's folder."""
    (folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)


def state_of(spec: RunSpec) -> State:
    """What a run's folder says of it."""
    return FolderReader().look(spec.folder, spec.signature).state


def script(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_command", REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
