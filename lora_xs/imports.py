"""Libraries, as a run wants them: quiet, and imported at once, since half the time until a first step is imports."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NEEDED = ("peft", "lora_xs.data", "lora_xs.runner", "lora_xs.training.labels", "lora_xs.training.responses")


def quiet_libraries() -> None:
    """Libraries' chatter goes to log.txt, not to the terminal; no attempt to reach a hub for telemetry."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger().setLevel(logging.INFO)
    # on a processor with bf16 instructions it tells every import which optional kernels it has not got
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def quiet_command() -> None:
    """`quiet_libraries` for a command without a log: what libraries say to each other's developers goes nowhere."""
    quiet_libraries()
    warnings.simplefilter("ignore", FutureWarning)


def import_libraries(quantised: bool) -> None:
    """Import what every run needs; bitsandbytes only where the model is `quantised`."""
    with _uncollected():
        if not quantised:
            _import_peft_alone()
        for name in NEEDED:
            importlib.import_module(name)


def _import_peft_alone() -> None:
    """Import peft without bitsandbytes, which it would import for one helper, and which brings torch's compiler along.

    That is a quarter of the processor's time until a first step. What computes with bitsandbytes imports it itself.
    """
    if {"peft", "bitsandbytes"} & sys.modules.keys():
        return
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # importing it is an ImportError, which peft expects
    try:
        importlib.import_module("peft")
    finally:
        del sys.modules["bitsandbytes"]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Modules stay: looking for garbage among them, now or later, is in vain, and takes a twelfth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
