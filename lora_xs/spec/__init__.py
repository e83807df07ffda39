"""RunSpec: one run, wholly described, validated before anything heavy is imported, and identified by its content."""

from __future__ import annotations

from lora_xs.spec.identity import PROTOCOL_VERSION, canonical_json, difference, run_folder, signature
from lora_xs.spec.runspec import RunSpec

__all__ = ["PROTOCOL_VERSION", "RunSpec", "canonical_json", "difference", "run_folder", "signature"]
