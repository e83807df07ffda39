"""A run's identity: canonical JSON of all that can change its result, and twelve hex digits of its SHA-256."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_xs.spec.runspec import RunSpec

PROTOCOL_VERSION = 2
"""Raised when the same spec would now train differently; it is part of every signature."""


def plain(value: Any, *, identity_only: bool) -> Any:
    """Dataclasses to dicts, tuples to lists; `identity_only` leaves out the fields that cannot change a result."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: plain(getattr(value, f.name), identity_only=identity_only)
            for f in dataclasses.fields(value)
            if not (identity_only and f.metadata.get("identity") is False)
        }
    if isinstance(value, dict):
        return {str(k): plain(v, identity_only=identity_only) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, identity_only=identity_only) for v in value]
    return value


def canonical_json(spec: RunSpec) -> str:
    """The identity of `spec` as JSON: sorted keys, no spaces, the protocol version included."""
    content = {"protocol_version": PROTOCOL_VERSION, **plain(spec, identity_only=True)}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def signature(spec: RunSpec) -> str:
    """The first 12 hex digits of the SHA-256 of `canonical_json(spec)`."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()[:12]


def run_folder(spec: RunSpec) -> Path:
    """`<results>/<task>/<method>[-r<rank>][-<init>]/s<seed>-<signature>`, the one folder of this run."""
    method: str = spec.method.name
    if spec.method.uses_rank:
        method += f"-r{spec.rank}"
    if spec.init.name not in ("svd_w", "method", "update"):
        method += f"-{spec.init.name}"
    elif spec.init.name == "svd_w" and (spec.init.part != "top" or not spec.init.sigma):
        method += f"-svd_w_{spec.init.part}" + ("" if spec.init.sigma else "_no_sigma")
    return Path(spec.results) / spec.task.name / method / f"s{spec.seed}-{signature(spec)}"


def difference(one: dict[str, Any], other: dict[str, Any], path: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted keys at which two canonical specs (parsed JSON) differ, with both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(one.keys() | other.keys()):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= difference(a, b, f"{path}{key}.")
        elif a != b:
            found[path + key] = (a, b)
    return found
