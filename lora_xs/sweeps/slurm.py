"""`submit(runs, settings, name=…) -> Submission`: a sweep as SLURM job arrays, through submitit.

Every submission has a folder, `<launcher.slurm.folder>/<name>/<when>/`: a manifest an array, submitit's scripts, the
tasks' output, and `submission.json`, which says what was submitted. The code the jobs run lies beside it
(`code-<commit>`). Results are where they always are, in the runs' folders; losing all of this loses no result.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_xs.atomic import write_json
from lora_xs.errors import UserError
from lora_xs.records import read_record
from lora_xs.spec import RunSpec
from lora_xs.spec.sections import LauncherSpec, SlurmSpec
from lora_xs.sweeps.cluster import cancel, check_cluster, check_gpus, most_tasks, refusal, sbatch_options
from lora_xs.sweeps.launcher import check_launcher
from lora_xs.sweeps.manifest import Line, Runnable, write_manifest
from lora_xs.sweeps.packing import Array, pack
from lora_xs.sweeps.queued import SUBMISSION, job_of, queued_runs
from lora_xs.sweeps.retry import set_aside
from lora_xs.sweeps.slurm_task import Task
from lora_xs.sweeps.snapshot import Snapshot, take_snapshot

SOURCE = Path(__file__).resolve().parents[2]
WORKER = (sys.executable, "-m", "lora_xs.sweeps.worker")
PATIENCE = 0.75  # of signal_seconds: what a worker has for saving before it is killed, so that its task is requeued
TEMPLATE = "slurm/sweep.sbatch"
SHOWN = 5  # tasks that are named


@dataclass(frozen=True)
class Submitted:
    """One array in the queue. job: its id. after: ids of the tasks it waits for. runs: signatures, by line."""

    job: str
    tasks: int
    manifest: str
    after: tuple[str, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Submission:
    """What was submitted. code: what the jobs run, None where nothing was. already: signature → job, left as it is.
    recorded: how many were finished, or had diverged, before."""

    name: str
    folder: Path
    code: Snapshot | None
    arrays: tuple[Submitted, ...]
    already: dict[str, str]
    recorded: int

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids for `scancel` and `squeue --jobs`."""
        return tuple(array.job for array in self.arrays)

    def in_words(self) -> str:
        """One line: jobs and folder, or why there are none."""
        tasks = sorted(set(self.already.values()))
        more = f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else ""
        queued = f"{len(self.already)} queued already ({', '.join(tasks[:SHOWN])}{more})" if tasks else ""
        if self.arrays:
            return "; ".join(filter(None, (f"submitted {', '.join(self.jobs)}", queued, str(self.folder))))
        return f"nothing to submit: {', '.join(filter(None, (f'{self.recorded} recorded', queued)))}"


def submit(
    runs: Sequence[Runnable],
    settings: LauncherSpec,
    *,
    name: str,
    retry: Collection[str] = (),
    source: Path = SOURCE,
    worker: Sequence[str] = WORKER,
) -> Submission:
    """Queue those of `runs` that have no record and are not queued, by a sweep of any name; all, or (UserError) none.

    name: of the sweep, a folder's name. retry: signatures whose diverged records do not count; they are set aside once
    SLURM would take the jobs. source: the checkout whose code the jobs run. worker: the command that takes
    `--manifest FILE --slice I/N`, exits 0 when all of the slice's runs are finished or diverged, and saves and stops
    when signalled.
    """
    check_launcher(settings)
    slurm = settings.slurm
    if slurm is None:
        raise UserError("launcher=local has no cluster to submit to; use launcher=slurm")
    sweep = Path(slurm.folder).absolute() / name
    folder = sweep / datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    # how a run is launched once a task has it
    node = LauncherSpec(threads=settings.threads or slurm.cpus_per_task, wait_policy=settings.wait_policy)
    records = {run.spec.signature: read_record(run.spec.folder) for run in runs}
    recorded = {
        signature: record.status
        for signature, record in records.items()
        if record is not None and not (record.status == "diverged" and signature in retry)
    }
    results = Path(runs[0].spec.results) if runs else Path()  # all runs of a sweep have one
    already = queued_runs(sweep.parent, results)
    waiting = [
        Line(
            run.spec.replace(launcher=node),
            tuple(need for need in run.needs if recorded.get(need) != "finished"),
        )
        for run in runs
        if run.spec.signature not in recorded and run.spec.signature not in already
    ]
    kept = {signature: already[signature] for signature in records if signature in already.keys() - recorded.keys()}
    if not waiting:
        return Submission(name, folder, None, (), kept, len(recorded))
    check_gpus(slurm, max(run.spec.trainer.processes for run in waiting))
    arrays = pack(
        waiting,
        runs_per_task=slurm.runs_per_task,
        most_tasks=most_tasks(),
        finished=lambda need: _finished(need, results),
        queued=already,
    )
    again = [run.spec for run in waiting if run.spec.signature in retry]
    _check(slurm, folder, arrays, again)
    code = take_snapshot(source, sweep, slurm.snapshot)
    manifests = _write_manifests(folder, arrays)
    patience = PATIENCE * slurm.signal_seconds
    for spec in again:
        set_aside(spec)
    submitted: list[Submitted] = []
    try:
        for array, manifest in zip(arrays, manifests, strict=True):
            after = [job_of(submitted[i].job, task, submitted[i].tasks) for i, task in array.after]
            parameters = job_parameters(slurm, node.threads or 1, code.path, name, [*after, *array.after_jobs])
            tasks = [Task(tuple(worker), str(manifest), index, array.tasks, patience) for index in range(array.tasks)]
            job = _send(parameters, slurm, folder, tasks)
            signatures = tuple(run.spec.signature for run in array.runs)
            submitted.append(Submitted(job, array.tasks, str(manifest), (*after, *array.after_jobs), signatures))
        write_json(folder / SUBMISSION, _facts(name, results, code, submitted))
    except BaseException:
        cancel([done.job for done in submitted])
        raise
    return Submission(name, folder, code, tuple(submitted), kept, len(recorded))


def _finished(signature: str, results: Path) -> bool:
    records = (read_record(folder) for folder in results.glob(f"**/s*-{signature}"))
    return any(record is not None and record.status == "finished" for record in records)


def _write_manifests(folder: Path, arrays: Sequence[Array[Line]]) -> list[Path]:
    paths = [folder / f"manifest-{number:02d}.jsonl" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        write_manifest(path, array.runs)
    return paths


def _check(slurm: SlurmSpec, folder: Path, arrays: Sequence[Array[Line]], again: Sequence[RunSpec]) -> None:
    """Whether jobs can be submitted from here. Where tools are missing, manifests are left for doing it by hand, and
    for that the diverged records of `again` are set aside."""
    lost = None
    try:
        import submitit  # noqa: F401
    except ImportError:
        lost = "submitit is not installed (pip install 'lora-xs[slurm]')"
    try:
        check_cluster(slurm)
    except UserError as refused:
        if "not on PATH" not in str(refused):
            raise
        lost = str(refused)
    if lost is None:
        return
    manifests = _write_manifests(folder, arrays)
    for spec in again:
        set_aside(spec)
    by_hand = f"sbatch --array=0-{arrays[0].tasks - 1} {TEMPLATE} {shlex.quote(str(manifests[0]))} {arrays[0].tasks}"
    more = f", then the other {len(arrays) - 1} manifests there in order" if len(arrays) > 1 else ""
    raise UserError(f"{lost}; on a login node submit by hand: {by_hand}{more} (slurm/README.md)")


def job_parameters(settings: SlurmSpec, threads: int, code: Path, name: str, after: Sequence[str]) -> dict[str, Any]:
    """What submitit's SlurmExecutor is told of an array that runs the code at `code` after the tasks `after`."""
    options: dict[str, str | bool] = {"chdir": os.getcwd(), "requeue": True, **sbatch_options(settings)}
    if after:
        options |= {"dependency": "afterok:" + ":".join(after), "kill-on-invalid-dep": "yes"}
    return {
        "job_name": name,
        "time": settings.minutes,
        "signal_delay_s": settings.signal_seconds,
        "array_parallelism": settings.array_parallelism,
        "stderr_to_stdout": True,
        "wckey": None,
        "setup": [
            *settings.setup,
            # the working directory is the user's, but its code must not be what is imported
            f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{threads}}}",
        ],
        "srun_args": [f"--cpus-per-task={settings.cpus_per_task}"],  # not inherited from sbatch since SLURM 22.05
        "additional_parameters": options,
    }


def _send(parameters: dict[str, Any], settings: SlurmSpec, folder: Path, tasks: Sequence[Task]) -> str:
    """Hand one array to SLURM; its job id."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = SlurmExecutor(folder=folder, max_num_timeout=settings.max_requeues)
    executor.update_parameters(**parameters)
    try:
        jobs = executor.submit_array(tasks)
    except (FailedJobError, FailedSubmissionError) as error:
        raise refusal(str(error), settings) from error
    return jobs[0].job_id.partition("_")[0]


def _facts(name: str, results: Path, code: Snapshot, submitted: Sequence[Submitted]) -> dict[str, object]:
    return {
        "name": name,
        "results": str(results.absolute()),
        "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": code.commit,
        "changed": list(code.changed),
        "code": str(code.path),
        "arrays": [asdict(array) for array in submitted],
    }
