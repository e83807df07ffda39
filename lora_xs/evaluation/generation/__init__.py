"""Completions of a test's prompts: engines, and files of what they wrote. Importing this needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lora_xs.evaluation.generation.answering import answer
from lora_xs.evaluation.generation.decoding import Completion, Decoding, Engine, PromptTooLong
from lora_xs.evaluation.generation.store import Generation, read_generations

if TYPE_CHECKING:
    from lora_xs.evaluation.generation.hf import HfEngine
    from lora_xs.evaluation.generation.vllm import VllmEngine

_ENGINES = {"HfEngine": "hf", "VllmEngine": "vllm"}

__all__ = [
    "Completion",
    "Decoding",
    "Engine",
    "Generation",
    "HfEngine",
    "PromptTooLong",
    "VllmEngine",
    "answer",
    "read_generations",
]


def __getattr__(name: str) -> Any:
    """An engine, imported on first use. Raises AttributeError for any other name."""
    if name not in _ENGINES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ENGINES[name]}"), name)
