"""A process that does several runs wipes its slate between them: what one leaves behind must not reach the next."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def clean_slate() -> Iterator[None]:
    """Give the block the state of a process that just started, and put back afterwards what it changed.

    That is: environment variables (mixed precision travels to accelerate in one), torch's global switches, accelerate's
    singletons, the root logger, warnings shown once, the peak of memory. RNGs need no care: a run
    seeds them before it draws. Compiled code is dropped, and so is what only cycles kept alive.
    """
    import torch

    from lora_xs.environment import forget_peak_memory

    environment, switches = dict(os.environ), _switches()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    _forget_accelerate()
    forget_peak_memory()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        _set_switches(switches)
        root.setLevel(level)
        root.handlers[:] = handlers
        _forget_accelerate()
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _switches() -> dict[str, Any]:
    """Torch's process-wide settings."""
    import torch

    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return {
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32),
        "attention": (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled()),
    }


def _set_switches(switches: dict[str, Any]) -> None:
    import torch

    if switches == _switches():
        return
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    torch.set_default_dtype(switches["dtype"])
    torch.set_grad_enabled(switches["gradients"])
    torch.set_num_threads(switches["threads"])
    torch.use_deterministic_algorithms(switches["deterministic"])
    torch.set_float32_matmul_precision(switches["precision"])
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = switches["cudnn"]
    flash, efficient, plain = switches["attention"]
    cuda.enable_flash_sdp(flash)
    cuda.enable_mem_efficient_sdp(efficient)
    cuda.enable_math_sdp(plain)


def _forget_accelerate() -> None:
    """Its singletons fix device and mixed precision at their first use. A process group that was joined stays."""
    if "accelerate" not in sys.modules:
        return
    import torch
    from accelerate.state import AcceleratorState, GradientState

    GradientState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
