"""Where a run took place: versions, commit, hardware, threads. No secrets, no host names, no paths."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "evaluate",
    "tokenizers",
    "safetensors",
    "numpy",
    "bitsandbytes",
    "math-verify",
    "vllm",
)
"""Whose version may change a number."""
SOURCE = Path(__file__).resolve().parents[1]


def describe_environment() -> dict[str, Any]:
    """Versions, commit, hardware, threads and world size of this process, as JSON values."""
    import torch

    from lora_xs import __version__
    from lora_xs.processes import place

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version(), "lora_xs": __version__, **versions(PACKAGES)},
        **_commit(),
        "hardware": {
            "cpu": _of_cpu("model name") or platform.processor() or platform.machine(),
            "instructions": _instructions(),
            "cores": usable_cores(),
            "gpu": gpu,
            "system": platform.system(),
        },
        "threads": {"torch": torch.get_num_threads(), "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "unset")},
        "world_size": place()[1],
    }


def peak_memory_mib() -> float:
    """The most memory used so far, in MiB: allocated on the GPU where there is one, else resident in RAM."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def forget_peak_memory() -> None:
    """Let `peak_memory_mib` begin anew, where the system can: the peak of one run among several of a process."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: those it is bound to, or fewer where a container's quota of time is less."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        return min(bound, max(1, round(int(allowed) / int(period))))
    except (OSError, ValueError):  # no quota: "max 100000", or another system
        return bound


def set_threads(threads: int | None, wait_policy: str) -> None:
    """Choose OpenMP's threads and how they wait; must run before torch is imported. The user's own variables win.

    Waiting actively costs a scheduler quantum at every barrier when another process wants the core (10–100 times
    slower steps were measured), so the default is passive. Without a number torch takes a thread a physical core that
    the process is bound to, which is too many where a container's quota is smaller: then it is the quota.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", wait_policy)
    if threads is None and hasattr(os, "sched_getaffinity") and usable_cores() < len(os.sched_getaffinity(0)):
        threads = usable_cores()
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed versions of those of `packages` that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _commit() -> dict[str, Any]:
    """The commit of the checkout this code runs from, and whether tracked files differ from it, or code is new.

    Asked once a process, whose code does not change with the checkout.
    """

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(SOURCE), *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--untracked-files=no") or git("status", "--porcelain", "lora_xs", "configs")
    return {"commit": commit, "dirty": bool(changes) if commit else None}


def _instructions() -> str:
    """`AVX512, family 25, model 17`: processors of one name may differ in these, and then in a sum's last bits."""
    import torch

    kinds = [f"{what.removeprefix('cpu ')} {found}" for what in ("cpu family", "model") if (found := _of_cpu(what))]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *kinds])


def _of_cpu(what: str) -> str | None:
    """A field of the first processor in /proc/cpuinfo; None where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == what:
                return value.strip()
    return None
