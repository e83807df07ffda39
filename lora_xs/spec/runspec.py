"""RunSpec: the composed config, resolved against the papers' published settings, checked and frozen."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lora_xs.errors import UserError
from lora_xs.spec.bind import bind
from lora_xs.spec.identity import plain, run_folder, signature
from lora_xs.spec.resolve import resolve
from lora_xs.spec.rules import check
from lora_xs.spec.sections import (
    DataSpec,
    EvaluationSpec,
    InitSpec,
    LauncherSpec,
    LoggerSpec,
    MethodSpec,
    ModelSpec,
    StartSpec,
    TaskSpec,
    TrainerSpec,
    aside,
)


@dataclass(frozen=True)
class RunSpec:
    """Everything that describes one run. Equal signatures mean the same result; see `lora_xs.spec.identity`."""

    model: ModelSpec
    task: TaskSpec
    method: MethodSpec
    rank: int | None  # of the adapter; None for methods without one
    init: InitSpec
    trainer: TrainerSpec
    evaluation: EvaluationSpec
    start_from: StartSpec
    seed: int
    protocol: Literal["lora_xs", "lora_sb"]
    data: DataSpec = aside(DataSpec())
    logger: LoggerSpec = aside(LoggerSpec())
    launcher: LauncherSpec = aside(LauncherSpec())
    results: str = aside("results/runs")
    provenance: Mapping[str, str] = aside({})  # dotted key → where its value was published, or "ours"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RunSpec:
        """Resolve, bind and check a composed config (plain containers). Raises UserError naming key and mend."""
        values, provenance = resolve(config)
        start = dict(values.get("start_from") or {})
        if start.get("run"):
            start["content"] = start_identity(Path(start["run"]), start.get("which", "best"))
        spec = bind(cls, {**values, "start_from": start, "provenance": provenance}, "")
        check(spec)
        return spec

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunSpec:
        """Read back what `to_json` wrote. Raises UserError for content that is not a RunSpec."""
        return bind(cls, values, "")

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values, those outside the identity included."""
        return plain(self, identity_only=False)

    @property
    def signature(self) -> str:
        """Twelve hex digits that stand for everything that can change the result."""
        return signature(self)

    @property
    def folder(self) -> Path:
        """The run's folder below `results`."""
        return run_folder(self)

    @property
    def alpha(self) -> float:
        """The adapter's alpha, in the same units as PEFT's `lora_alpha`. Raises ValueError for methods without one."""
        if self.method.alpha is None:
            raise ValueError(f"method {self.method.name} has no alpha")
        return self.method.alpha

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Suffixes of the adapted modules: the method's own where it names some, else the model's."""
        return self.method.target_modules if self.method.target_modules is not None else self.model.target_modules

    def replace(self, **sections: Any) -> RunSpec:
        """A copy with whole sections replaced."""
        return dataclasses.replace(self, **sections)


def adapter_folder(run: Path, which: str) -> Path:
    """The folder that holds adapter files: `run` itself, or `run/adapter/<which>` where `run` is a run's folder.

    Raises UserError when neither holds an `adapter_model.safetensors`.
    """
    for folder in (run, run / "adapter" / which):
        if (folder / "adapter_model.safetensors").is_file():
            return folder
    raise UserError(
        f"start_from={run}: no adapter_model.safetensors there nor in adapter/{which}/; give a finished run's folder"
    )


def start_identity(run: Path, which: str) -> str:
    """What `start_from` adds to a run's identity: the signature of the run it names, which may not be finished yet, or
    the SHA-256 of the adapter file of any other folder. Raises UserError where such a folder holds no adapter.
    """
    planned = re.fullmatch(r"s\d+-([0-9a-f]{12})", run.name)
    return f"run {planned[1]}" if planned else adapter_content(run, which)


def adapter_content(run: Path, which: str) -> str:
    """SHA-256 of the adapter file that `start_from` names."""
    file = adapter_folder(run, which) / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()
