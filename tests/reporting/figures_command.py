"""`scripts/figures.py` as a module."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[2]


def figures_script() -> ModuleType:
    """scripts/figures.py, imported."""
    spec = importlib.util.spec_from_file_location("figures_script", REPOSITORY / "scripts" / "figures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
