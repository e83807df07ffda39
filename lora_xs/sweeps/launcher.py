"""Which launcher a sweep's overrides ask for. Its settings are the sweep's; each of its runs is local to its worker."""

from __future__ import annotations

from collections.abc import Sequence

from lora_xs.errors import UserError
from lora_xs.spec.bind import bind
from lora_xs.spec.compose import compose_config
from lora_xs.spec.sections import LauncherSpec


def split_launcher(overrides: Sequence[str]) -> tuple[LauncherSpec, list[str]]:
    """The launcher that Hydra `overrides` describe, and the overrides that are left for the runs.

    Threads and their way of waiting go on to the runs. Raises UserError for what is unknown or makes no sense.
    """
    own = [text for text in overrides if _key(text) == "launcher" or _key(text).startswith("launcher.")]
    if not any(_key(text) == "launcher" for text in own):
        for text in own:
            if _key(text).startswith("launcher.slurm"):
                raise UserError(f"{text}: launcher.slurm goes with SLURM alone; add launcher=slurm")
    settings = bind(LauncherSpec, compose_config(own)["launcher"], "launcher")
    check_launcher(settings)
    threads = [] if settings.threads is None else [f"launcher.threads={settings.threads}"]
    rest = [text for text in overrides if text not in own]
    return settings, [*rest, *threads, f"launcher.wait_policy={settings.wait_policy}"]


def check_launcher(settings: LauncherSpec) -> None:
    """Raise UserError, one line, for the first setting that makes no sense."""
    slurm = settings.slurm
    if (slurm is not None) != (settings.name == "slurm"):
        raise UserError(f"launcher.slurm goes with launcher.name=slurm alone, not {settings.name}; use launcher=slurm")
    counts = {"launcher.threads": settings.threads}
    if slurm is not None:
        for name in ("cpus_per_task", "minutes", "signal_seconds", "runs_per_task", "array_parallelism"):
            counts[f"launcher.slurm.{name}"] = getattr(slurm, name)
    for key, count in counts.items():
        if count is not None and count < 1:
            raise UserError(f"{key}={count} must be at least 1")
    if slurm is None:
        return
    if slurm.max_requeues < 0:
        raise UserError(f"launcher.slurm.max_requeues={slurm.max_requeues} must not be negative")
    if slurm.signal_seconds >= slurm.minutes * 60:
        raise UserError(
            f"launcher.slurm.signal_seconds={slurm.signal_seconds} leaves nothing of "
            f"launcher.slurm.minutes={slurm.minutes}; give more minutes"
        )


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
