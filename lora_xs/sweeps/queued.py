"""What SLURM still holds of sweeps: `submission.json` files say what was submitted, `squeue` what is left of it.

Nothing depends on it being right: a run that is queued twice is trained once (its lease and its record see to that).
It saves the second task.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

SUBMISSION = "submission.json"


def queued_runs(sweeps: Path, results: Path) -> dict[str, str]:
    """Signature → job id (`12_3`) of the runs that submissions of any sweep in the folder `sweeps`, with results below
    `results`, have in the queue or running: experiments share runs.

    Empty where there is no `squeue`. Runs of a task that are finished already are among them.
    """
    live = _live_jobs()
    found: dict[str, str] = {}
    for file in sorted(sweeps.glob(f"*/*/{SUBMISSION}")):
        try:
            submission = json.loads(file.read_text(encoding="utf-8"))
            arrays = submission["arrays"] if submission["results"] == str(results.absolute()) else []
        except (OSError, ValueError, KeyError):
            continue
        for array in arrays:
            for position, signature in enumerate(array["runs"]):
                job = job_of(array["job"], position % array["tasks"], array["tasks"])
                if job in live:
                    found[signature] = job
    return found


def job_of(job: str, task: int, tasks: int) -> str:
    """SLURM's name of a task: submitit makes an array of several tasks, a plain job of one."""
    return f"{job}_{task}" if tasks > 1 else job


def _live_jobs() -> set[str]:
    """Ids of this user's jobs that are pending, running or between the two."""
    if shutil.which("squeue") is None:
        return set()
    words = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return set()
    return set(done.stdout.split())
