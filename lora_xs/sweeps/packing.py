"""Which runs share a task and which tasks an array: short runs packed, runs that others need alone, needs kept exact.

All tasks of an array wait for the same jobs, so runs are grouped by what they need. A run that others need has a task
of its own: the task's exit status is then that run's outcome, and `afterok` on it says neither more nor less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lora_xs.errors import UserError
from lora_xs.sweeps.manifest import Runnable

R = TypeVar("R", bound=Runnable)


@dataclass(frozen=True)
class Array(Generic[R]):
    """Runs of one array job; task I of `tasks` has slice I/tasks of them.

    after: tasks that must have ended well before any of these may start: (index of an earlier array, its task).
    after_jobs: the same, for jobs of earlier submissions.
    """

    runs: tuple[R, ...]
    tasks: int
    after: tuple[tuple[int, int], ...] = ()
    after_jobs: tuple[str, ...] = ()


def pack(
    runs: Sequence[R],
    *,
    runs_per_task: int,
    most_tasks: int,
    finished: Callable[[str], bool] = lambda signature: False,
    queued: Mapping[str, str] | None = None,
) -> list[Array[R]]:
    """The arrays of `runs`, needs before those that need them; order is kept within an array.

    runs_per_task: the most runs of a task. most_tasks: the most tasks of an array. finished: whether the run of a
    signature that is not among `runs` is finished. queued: signature → job id, of runs that an earlier submission has
    queued. Raises UserError for a need that is none of these, and for runs that need each other.
    """
    queued = queued or {}
    own = {run.spec.signature for run in runs}
    for run in runs:
        for need in run.needs:
            if need not in own and need not in queued and not finished(need):
                raise UserError(
                    f"{run.spec.folder} needs the run {need}, which is neither finished nor queued nor in this "
                    "submission; submit that run first, or with it"
                )
    needed = {need for run in runs for need in run.needs}
    place: dict[str, tuple[int, int]] = {}
    arrays: list[Array[R]] = []
    left = list(runs)
    while left:
        groups: dict[tuple[tuple[str, ...], bool], list[R]] = {}
        for run in left:
            if all(need in place or need not in own for need in run.needs):
                waits_for = tuple(sorted(need for need in run.needs if need in own or need in queued))
                groups.setdefault((waits_for, run.spec.signature in needed), []).append(run)
        if not groups:
            names = ", ".join(run.spec.signature for run in left[:3])
            raise UserError(f"runs that need each other: {names}; mend the experiment's needs")
        for (waits_for, is_needed), members in groups.items():
            size = 1 if is_needed else runs_per_task
            for start in range(0, len(members), size * most_tasks):
                part = members[start : start + size * most_tasks]
                tasks = math.ceil(len(part) / size)
                for position, run in enumerate(part):
                    place[run.spec.signature] = (len(arrays), position % tasks)
                arrays.append(
                    Array(
                        tuple(part),
                        tasks,
                        tuple(sorted({place[need] for need in waits_for if need in own})),
                        tuple(sorted({queued[need] for need in waits_for if need not in own})),
                    )
                )
        left = [run for run in left if run.spec.signature not in place]
    return arrays
