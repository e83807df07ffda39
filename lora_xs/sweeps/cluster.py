"""The cluster as its own commands describe it: which options a task asks for, and whether SLURM would take them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from lora_xs.errors import UserError
from lora_xs.spec.sections import SlurmSpec

ASKED_FOR = ("partition", "account", "qos", "gres", "constraint", "mem", "cpus_per_task")
OURS = (  # long options of sbatch that the launcher itself gives
    *("array", "chdir", "cpus-per-task", "dependency", "error", "job-name", "kill-on-invalid-dep", "nodes", "ntasks"),
    *("open-mode", "output", "requeue", "no-requeue", "signal", "test-only", "time", "wait", "wrap", "parsable"),
)
UNCLEAR = "Requested node configuration is not available"  # never, or while nodes are drained: a real job tells
USUAL_ARRAY = 1001


def sbatch_options(settings: SlurmSpec) -> dict[str, str]:
    """sbatch's long options for what the user asks of the cluster. Raises UserError where `extra` names one of ours."""
    options = {}
    for name in ASKED_FOR:
        value = getattr(settings, name)
        if value is not None:
            options[name.replace("_", "-")] = str(value)
    for name, value in settings.extra.items():
        if name in OURS or name in options or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise UserError(
                f"launcher.slurm.extra.{name}={value} is set by the launcher or no long option of sbatch; "
                f"leave it out, or use one of the keys of launcher.slurm"
            )
        options[name] = str(value)
    return options


def check_cluster(settings: SlurmSpec) -> None:
    """Ask sbatch whether it would take such a job. Raises UserError with its answer where it would not."""
    if shutil.which("sbatch") is None:
        raise UserError("sbatch is not on PATH, so this is no login node of a SLURM cluster")
    flags = [f"--{name}={value}" for name, value in sbatch_options(settings).items()]
    words = [f"--time={settings.minutes}", "--output=/dev/null", *flags, "--wrap=true"]
    done = _ask(["sbatch", "--test-only", *words])
    if UNCLEAR in done.stderr:
        done = _ask(["sbatch", "--begin=now+1day", "--parsable", *words])
        cancel([done.stdout.partition(";")[0].strip()] if done.returncode == 0 else [])
    if done.returncode != 0:
        raise refusal(" ".join(line for line in done.stderr.splitlines() if not line.startswith("Try ")), settings)


def check_gpus(settings: SlurmSpec, processes: int) -> None:
    """Raises UserError where `gres` asks for fewer GPUs than a run has processes."""
    asked = re.fullmatch(r"gpu(?::[^:]+)*?(?::(\d+))?", settings.gres or "")
    if asked and int(asked[1] or 1) < processes:
        raise UserError(
            f"launcher.slurm.gres={settings.gres} is too little for a run of trainer.processes={processes}; give "
            f"launcher.slurm.gres=gpu:{processes} to these runs alone (--only) or leave them out"
        )


def refusal(answer: str, settings: SlurmSpec) -> UserError:
    """SLURM's own words, beside what it was asked for, as one line."""
    asked = " ".join(f"{name}={value}" for name, value in sbatch_options(settings).items())
    words = " ".join(answer.replace("sbatch: ", "").replace("error: ", "").split())
    return UserError(
        f"SLURM refuses the job: {words[:300]} (asked for {asked}); mend launcher.slurm.*, `sinfo` lists partitions"
    )


def most_tasks() -> int:
    """The most tasks of an array here, by `scontrol show config`."""
    if shutil.which("scontrol") is None:
        return USUAL_ARRAY
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask(["scontrol", "show", "config"]).stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else USUAL_ARRAY


def cancel(jobs: Sequence[str]) -> None:
    """scancel `jobs`, without complaint."""
    if jobs:
        _ask(["scancel", *jobs])


def _ask(words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} did not answer within 120 s; is the cluster's controller up? try again") from None
